package alloctrace_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// TestAllocateContext: a Proxy waits where a Limit below it does, counts a request once
// when it is over, and delivers it like any other.
func TestAllocateContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		observed := &recorder{}
		mem := alloctrace.Wrap(blockalloc.NewLimit(alloctrace.Wrap(new(blockalloc.Heap)), 8<<10), alloctrace.WithHooks(observed))
		first, second := allocate(t, mem, page), allocate(t, mem, page)
		var third blockalloc.Block
		go func() {
			var err error
			if third, err = mem.AllocateContext(t.Context(), page); err != nil {
				t.Error(err)
			}
		}()
		synctest.Wait()
		if s := mem.Stats(); !third.IsZero() || s.Allocations != 2 || s.Failures() != 0 {
			t.Fatalf("while it waits: %v, %v", third, s)
		}
		free(t, mem, first)
		synctest.Wait()
		if third.Size() != page.Size {
			t.Fatal("it was not granted")
		}

		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := mem.AllocateContext(ctx, page); !errors.Is(err, context.Canceled) || !errors.Is(err, blockalloc.ErrLimit) {
			t.Error(err)
		}
		free(t, mem, second, third)
		if err := mem.Close(); err != nil {
			t.Error(err)
		}
		if _, err := mem.AllocateContext(t.Context(), page); !errors.Is(err, blockalloc.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		var kinds []alloctrace.Kind
		for _, e := range observed.events {
			kinds = append(kinds, e.Kind)
		}
		if want := []alloctrace.Kind{
			alloctrace.Allocated, alloctrace.Allocated, alloctrace.Freeing, alloctrace.Allocated,
			alloctrace.AllocateFailed, alloctrace.Freeing, alloctrace.Freeing, alloctrace.AllocateFailed,
		}; !slices.Equal(kinds, want) {
			t.Errorf("hooks observe %v, want %v", kinds, want)
		}
		if s := mem.Stats(); s.Allocations != 3 || s.FailedAllocations != 2 || s.Frees != 3 {
			t.Error(s)
		}
	})
}

// TestAllocateContextReachesHooks: hooks are given the context of the call, of a child with its
// name, and so are those of proxies below.
func TestAllocateContextReachesHooks(t *testing.T) {
	type key struct{}
	var seen []string
	hook := func(of string) alloctrace.Option {
		return alloctrace.WithHooks(attacher(func(to alloctrace.Attachment, ctx context.Context, e alloctrace.Event) {
			seen = append(seen, fmt.Sprint(of, " ", e.Kind, " ", ctx.Value(key{}), " ", to.Child))
		}))
	}
	below := alloctrace.Wrap(new(blockalloc.Heap), hook("below"))
	mem := alloctrace.Wrap(blockalloc.NewLimit(below, 4<<10), hook("mem"))
	for name, p := range map[string]*alloctrace.Proxy{"": mem, "cache": mem.Child("cache")} {
		ctx, cancel := context.WithCancel(context.WithValue(t.Context(), key{}, "request"))
		b, err := p.AllocateContext(ctx, page)
		if err != nil {
			t.Fatal(err)
		}
		cancel()
		if _, err := p.AllocateContext(ctx, page); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		want := []string{"below allocated request ", "mem allocated request " + name, "mem allocate failed request " + name}
		if !slices.Equal(seen, want) {
			t.Errorf("hooks observe %q, want %q", seen, want)
		}
		free(t, p, b)
		seen = nil
	}
}

// TestAllocateContextElsewhere: what cannot wait does not.
func TestAllocateContextElsewhere(t *testing.T) {
	mem := alloctrace.Wrap(blockalloc.NewLocked(blockalloc.NewLimit(new(blockalloc.Heap), 4<<10)))
	b, err := mem.AllocateContext(t.Context(), page)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := mem.AllocateContext(t.Context(), page); !errors.Is(err, blockalloc.ErrLimit) {
		t.Error(err)
	}
	free(t, mem, b)
}
