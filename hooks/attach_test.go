package hooks_test

import (
	"context"
	"fmt"
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

// details notes what it asks for in Attach.
type details struct{ seen *[]string }

func (d details) Observe(context.Context, alloctrace.Event, error) {}

func (d details) Attach(to *alloctrace.Attachment) alloctrace.Hook {
	to.OnRequested(func(_ context.Context, e alloctrace.Event, requested uintptr, began uint64) uint64 {
		*d.seen = append(*d.seen, fmt.Sprintf("%v %d to %d began %d", e.Kind, e.Size, requested, began))
		return uint64(e.Size)
	})
	return d
}

// TestDetailsAreChosen: what a hook is not to see it does not see by what it asks for in Attach either.
func TestDetailsAreChosen(t *testing.T) {
	for name, c := range map[string]struct {
		around func(alloctrace.Hook) alloctrace.Hook
		want   []string
	}{
		"Filter": {
			func(h alloctrace.Hook) alloctrace.Hook {
				return hooks.Filter(h, hooks.MinSize(1000), hooks.MinSize(500))
			},
			[]string{"allocated 1000 to 1000 began 0", "reallocated 3000 to 3000 began 0", "reallocating 3000 to 10 began 0"},
		},
		"Tee and Filter": {
			func(h alloctrace.Hook) alloctrace.Hook {
				return hooks.Tee(hooks.Filter(h, hooks.MinSize(2000)), hooks.Filter(h, hooks.Failures))
			},
			[]string{"reallocated 3000 to 3000 began 0", "reallocating 3000 to 10 began 0"},
		},
		"Sample": {
			func(h alloctrace.Hook) alloctrace.Hook { return hooks.Sample(h, 2) },
			[]string{"allocated 100 to 100 began 0", "reallocating 100 to 3000 began 0", "reallocated 3000 to 3000 began 100"},
		},
	} {
		var seen []string
		p := alloctrace.Wrap(&blockalloc.Heap{}, alloctrace.WithHooks(c.around(details{&seen})))
		small, err := p.Allocate(blockalloc.Layout{Size: 100, Align: 8})
		if err != nil {
			t.Fatal(err)
		}
		if _, err = p.Allocate(blockalloc.Layout{Size: 1000, Align: 8}); err != nil {
			t.Fatal(err)
		}
		for _, size := range []uintptr{3000, 10} {
			if small, err = p.Reallocate(small, size); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(seen, c.want) {
			t.Errorf("%s: the hook has seen %q, want %q", name, seen, c.want)
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
