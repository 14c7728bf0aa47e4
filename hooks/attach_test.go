package hooks_test

import (
	"context"
	"slices"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// parts notes whose events it observes, and which releases end.
type parts struct{ seen *[]string }

func (p parts) Observe(context.Context, alloctrace.Event, error) {
	*p.seen = append(*p.seen, "without being attached")
}

func (p parts) Attach(to *alloctrace.Attachment) alloctrace.Hook {
	child := to.Child
	to.OnReleased(func(uintptr, uintptr) { *p.seen = append(*p.seen, child+" released") }).Add(1)
	return alloctrace.HookFunc(func(_ context.Context, e alloctrace.Event, _ error) {
		*p.seen = append(*p.seen, child+" "+e.Kind.String())
	})
}

// TestHandedOn: a hook that hands on events attaches the hook that it hands them on to.
func TestHandedOn(t *testing.T) {
	for name, around := range map[string]func(alloctrace.Hook) alloctrace.Hook{
		"Tee":    func(h alloctrace.Hook) alloctrace.Hook { return hooks.Tee(nil, h) },
		"Filter": func(h alloctrace.Hook) alloctrace.Hook { return hooks.Filter(h, hooks.MinSize(1)) },
		"Sample": func(h alloctrace.Hook) alloctrace.Hook { return hooks.Sample(h, 1) },
		"Meter":  func(h alloctrace.Hook) alloctrace.Hook { return hooks.NewMeter(h) },
		"all nested": func(h alloctrace.Hook) alloctrace.Hook {
			return hooks.Sample(hooks.Tee(hooks.Filter(hooks.NewMeter(h))), 1)
		},
	} {
		var seen []string
		p := alloctrace.Wrap(measure.NewInner(), alloctrace.WithHooks(around(parts{&seen})))
		c := p.Child("c").WithContext(t.Context())
		b, err := c.Allocate(blockalloc.BlockLayout(4096))
		if err != nil || c.Free(b) != nil {
			t.Fatal(err)
		}
		if b, err = p.Allocate(blockalloc.BlockLayout(4096)); err != nil || p.Free(b) != nil {
			t.Fatal(err)
		}
		if want := []string{"c allocated", "c freeing", "c released", " allocated", " freeing", " released"}; !slices.Equal(seen, want) {
			t.Errorf("%s: the hook has seen %q, want %q", name, seen, want)
		}
	}
}

// TestSampleOfAll: children and the whole are sampled as one.
func TestSampleOfAll(t *testing.T) {
	var seen []string
	p := alloctrace.Wrap(measure.NewInner(), alloctrace.WithHooks(hooks.Sample(parts{&seen}, 4)))
	for range 8 {
		if _, err := p.Child("c").Allocate(blockalloc.BlockLayout(4096)); err != nil {
			t.Fatal(err)
		}
	}
	if len(seen) != 2 {
		t.Errorf("%d of 8 events are handed on, want 2", len(seen))
	}
}
