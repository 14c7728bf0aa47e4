package alloctrace_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
)

// A reallocationHook numbers reallocations, and notes which of them the events are of.
type reallocationHook struct {
	name  string
	count *uint64
	seen  *[]string
}

func (h reallocationHook) Observe(context.Context, alloctrace.Event, error) {}

func (h reallocationHook) Attach(to *alloctrace.Attachment) alloctrace.Hook {
	to.OnRequested(func(_ context.Context, e alloctrace.Event, requested uintptr, began uint64) uint64 {
		if e.Kind == alloctrace.Allocated {
			return 0
		}
		if e.Kind == alloctrace.Reallocating {
			*h.count++
			began = *h.count
		}
		*h.seen = append(*h.seen, fmt.Sprintf("%s%d %s %d to %d", h.name, began, e.Kind, e.Size, requested))
		return began
	})
	return h
}

// TestReallocations: both events of a reallocation come with what the hook has returned for the first, however a block is reallocated and
// whoever refuses it.
func TestReallocations(t *testing.T) {
	var seen []string
	var count uint64
	a, b := reallocationHook{"a", &count, &seen}, reallocationHook{"b", &count, &seen}
	below := alloctrace.Wrap(&blockalloc.Heap{}, alloctrace.WithHooks(a))
	p := alloctrace.Wrap(below, alloctrace.WithHooks(a, alloctrace.HookFunc(func(context.Context, alloctrace.Event, error) {}), b))
	bump, err := blockalloc.NewBump(&blockalloc.Heap{}, 1000)
	if err != nil {
		t.Fatal(err)
	}
	grows := alloctrace.Wrap(bump, alloctrace.WithHooks(a))
	refusing := alloctrace.Wrap(failing.After(&blockalloc.Heap{}, 1), alloctrace.WithHooks(a))
	layout := blockalloc.Layout{Size: 100, Align: 8}
	moved, zero, kept := allocate(t, p, layout), allocate(t, p, layout), allocate(t, refusing, layout)
	older, same := allocate(t, grows, blockalloc.Layout{Size: 80, Align: 8}), allocate(t, grows, layout)
	for _, c := range []struct {
		name string
		do   func() error
		err  error
		want []string
	}{
		{"moved", func() error { moved, err = p.Reallocate(moved, 300); return err }, nil, []string{
			"a1 reallocating 100 to 300", "b2 reallocating 100 to 300", "a3 reallocating 100 to 300",
			"a3 reallocated 300 to 300", "b2 reallocated 300 to 300", "a1 reallocated 300 to 300",
		}},
		{"quiet", func() error { moved, err = p.Quiet().Reallocate(moved, 100); return err }, nil, nil},
		{"to nothing", func() error { _, err := p.Reallocate(zero, 0); return err }, nil, []string{
			"a4 reallocating 100 to 0", "b5 reallocating 100 to 0", "a6 reallocating 100 to 0",
		}},
		{"of nothing", func() error { _, err := below.Reallocate(blockalloc.Block{}, 8); return err }, blockalloc.ErrBadLayout,
			[]string{"a0 reallocate failed 0 to 8"}},
		{"smaller in place", func() error { same, err = grows.WithContext(t.Context()).Resize(same, 50); return err }, nil,
			[]string{"a7 reallocating 100 to 50", "a7 reallocated 50 to 50"}},
		{"larger in place", func() error { same, err = grows.Child("c").Resize(same, 60); return err }, nil,
			[]string{"a8 reallocating 50 to 60", "a8 reallocated 60 to 60"}},
		{"would move", func() error { _, err := grows.Resize(older, 90); return err }, blockalloc.ErrWouldMove, nil},
		{"refused", func() error { _, err := refusing.Reallocate(kept, 200); return err }, failing.ErrInjected,
			[]string{"a9 reallocating 100 to 200", "a9 reallocate failed 100 to 200"}},
		{"unknown", func() error { _, err := refusing.Reallocate(raw(t, same), 200); return err }, blockalloc.ErrNotOwned,
			[]string{"a10 reallocating 60 to 200", "a10 reallocate failed 60 to 200"}},
		{"closed", func() error { _ = refusing.Close(); _, err := refusing.Reallocate(kept, 200); return err }, blockalloc.ErrClosed,
			[]string{"a11 reallocating 100 to 200", "a11 reallocate failed 100 to 200"}},
		{"closed, in place", func() error { _, err := refusing.Resize(kept, 20); return err }, blockalloc.ErrClosed,
			[]string{"a12 reallocating 100 to 20", "a12 reallocate failed 100 to 20"}},
	} {
		seen = nil
		if err := c.do(); !errors.Is(err, c.err) || !slices.Equal(seen, c.want) {
			t.Errorf("%s: %v, %q, want %v, %q", c.name, err, seen, c.err, c.want)
		}
	}
}
