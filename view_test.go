package alloctrace_test

import (
	"context"
	"slices"
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
	"github.com/alloctrace/alloctrace/blockalloc/guard"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// wrappers are ways to put another allocator between two Proxies.
var wrappers = map[string]func(blockalloc.Allocator) blockalloc.Allocator{
	"nothing":       func(a blockalloc.Allocator) blockalloc.Allocator { return a },
	"Limit":         func(a blockalloc.Allocator) blockalloc.Allocator { return blockalloc.NewLimit(a, 1<<20) },
	"Locked":        func(a blockalloc.Allocator) blockalloc.Allocator { return blockalloc.NewLocked(a) },
	"failing.After": func(a blockalloc.Allocator) blockalloc.Allocator { return failing.After(a, 1<<40) },
	"guard":         func(a blockalloc.Allocator) blockalloc.Allocator { return guard.New(a, guard.Options{Rate: -1}) },
	"Fallback, first": func(a blockalloc.Allocator) blockalloc.Allocator {
		return blockalloc.NewFallback(a, blockalloc.Null{})
	},
	"Fallback, second": func(a blockalloc.Allocator) blockalloc.Allocator {
		return blockalloc.NewFallback(blockalloc.Null{}, a)
	},
	"Segregate, small": func(a blockalloc.Allocator) blockalloc.Allocator {
		return blockalloc.NewSegregate(a, blockalloc.Null{}, page.Size)
	},
	"Segregate, large": func(a blockalloc.Allocator) blockalloc.Allocator {
		return blockalloc.NewSegregate(blockalloc.Null{}, a, 8)
	},
	"three": func(a blockalloc.Allocator) blockalloc.Allocator {
		return blockalloc.NewLocked(blockalloc.NewFallback(blockalloc.NewLimit(a, 1<<20), new(blockalloc.Heap)))
	},
}

// contextKey is that of a value which contextHook notes for each event.
type contextKey struct{}

type contextHook struct {
	mu   sync.Mutex
	seen []any
}

func (h *contextHook) Observe(ctx context.Context, _ alloctrace.Event, _ error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.seen = append(h.seen, ctx.Value(contextKey{}))
}

// TestViewReachesThroughWrappers: the Proxies below a Proxy are given the context of
// its view, and are silent below a quiet one, whatever wrappers are in between.
func TestViewReachesThroughWrappers(t *testing.T) {
	for name, wrap := range wrappers {
		t.Run(name, func(t *testing.T) {
			var hook contextHook
			inner := alloctrace.Wrap(alloctest.New(t), alloctrace.WithHooks(&hook))
			outer := alloctrace.Wrap(wrap(inner), alloctrace.WithHooks(&hook))
			before := blockalloc.Tree(outer)
			view := outer.WithContext(context.WithValue(t.Context(), contextKey{}, "request"))
			free(t, outer, allocate(t, view, page))
			if want := []any{"request", "request", nil, nil}; !slices.Equal(hook.seen, want) {
				t.Errorf("hooks saw the context values %v, want %v", hook.seen, want)
			}
			hook.seen = nil
			quiet := outer.Quiet()
			b := allocate(t, quiet, page)
			if !quiet.Owns(b) || !outer.Owns(b) {
				t.Error("a view and what it is a view of do not own the same blocks")
			}
			free(t, quiet, b)
			if len(hook.seen) != 0 {
				t.Errorf("%d events below a quiet view", len(hook.seen))
			}
			if got := blockalloc.Tree(view); got != before || blockalloc.Tree(outer) != before {
				t.Errorf("the view is\n%s\nof\n%s", got, before)
			}
			for _, p := range []*alloctrace.Proxy{outer, inner, view, quiet} {
				if s := p.Stats(); s.Allocations != 2 || s.Frees != 2 {
					t.Errorf("%v; want all views to count as one", s)
				}
			}
		})
	}
}

// TestViewReachesBothInner: all Proxies below are reached, not just the first.
func TestViewReachesBothInner(t *testing.T) {
	var hook contextHook
	small := alloctrace.Wrap(alloctest.New(t), alloctrace.WithHooks(&hook))
	large := alloctrace.Wrap(alloctest.New(t), alloctrace.WithHooks(&hook))
	p := alloctrace.Wrap(blockalloc.NewSegregate(small, large, 100))
	view := p.WithContext(context.WithValue(t.Context(), contextKey{}, 1))
	b := allocate(t, view, blockalloc.BlockLayout(64))
	b, err := view.Reallocate(b, 200) // allocates large, frees small
	if err != nil {
		t.Fatal(err)
	}
	free(t, view, b)
	if want := []any{1, 1, 1, 1}; !slices.Equal(hook.seen, want) {
		t.Errorf("hooks saw the context values %v, want %v", hook.seen, want)
	}
}

// TestViewSharesState: requests through the views of many goroutines meet one
// limit, and are counted by the Proxies on either side of it.
func TestViewSharesState(t *testing.T) {
	const workers, fit = 8, 5
	inner := alloctrace.Wrap(alloctest.New(t))
	limit := blockalloc.NewLimit(inner, fit*int64(page.Size))
	outer := alloctrace.Wrap(limit)
	var blocks [workers]blockalloc.Block
	var wg sync.WaitGroup
	for i := range blocks {
		wg.Go(func() { blocks[i], _ = outer.WithContext(t.Context()).Quiet().Allocate(page) })
	}
	wg.Wait()
	if limit.Used() != limit.Max() {
		t.Errorf("%d of %d bytes are used", limit.Used(), limit.Max())
	}
	if s := outer.Stats(); s.LiveBlocks != fit || s.FailedAllocations != workers-fit {
		t.Errorf("outer: %v; want %d blocks and %d failures", s, fit, workers-fit)
	}
	if s := inner.Stats(); s.LiveBlocks != fit || s.FailedAllocations != 0 {
		t.Errorf("inner: %v; want %d blocks and no failure", s, fit)
	}
	free(t, outer, blocks[:]...)
}

// carver takes its memory from a parent, on its own account.
type carver struct{ parent blockalloc.Allocator }

func (c carver) Parent() blockalloc.Allocator { return c.parent }

func (c carver) Allocate(l blockalloc.Layout) (blockalloc.Block, error) { return c.parent.Allocate(l) }

func (c carver) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	return c.parent.Reallocate(b, size)
}

func (c carver) Free(b blockalloc.Block) error { return c.parent.Free(b) }

// TestViewStopsAtCarvers: what an allocator takes from its parent belongs to no one
// caller.
func TestViewStopsAtCarvers(t *testing.T) {
	var hook contextHook
	inner := alloctrace.Wrap(alloctest.New(t), alloctrace.WithHooks(&hook))
	p := alloctrace.Wrap(blockalloc.NewLimit(carver{inner}, 1<<20))
	b := allocate(t, p.WithContext(context.WithValue(t.Context(), contextKey{}, 1)), page)
	c := allocate(t, p.Quiet(), page)
	if want := []any{nil, nil}; !slices.Equal(hook.seen, want) {
		t.Errorf("hooks saw the context values %v, want %v", hook.seen, want)
	}
	free(t, p, b, c)
}

// TestViewOfNoProxy: with no Proxy below, a view has the very inner allocator.
func TestViewOfNoProxy(t *testing.T) {
	limit := blockalloc.NewLimit(blockalloc.NewLocked(&blockalloc.Heap{}), 1<<20)
	p := alloctrace.Wrap(limit)
	if got := p.WithContext(t.Context()).Unwrap(); got != limit {
		t.Errorf("the view's inner allocator is %v, want %v itself", got, limit)
	}
	if got := p.Quiet().Unwrap(); got != limit {
		t.Errorf("the quiet view's inner allocator is %v, want %v itself", got, limit)
	}
}

// TestViewNoAllocations: operations through a view make no garbage, Owns included.
func TestViewNoAllocations(t *testing.T) {
	for name, wrap := range wrappers {
		if name == "Fallback, second" { // the failure of the first makes an error
			continue
		}
		t.Run(name, func(t *testing.T) {
			inner := alloctrace.Wrap(ownedInner{measure.NewInner()})
			view := alloctrace.Wrap(wrap(inner)).WithContext(t.Context())
			measure.WantAllocs(t, 0, func() {
				b, err := view.Allocate(page)
				if err != nil || !view.Owns(b) {
					t.Fatal(err)
				}
				if err := view.Free(b); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// ownedInner is an Inner that is an Owner.
type ownedInner struct{ *measure.Inner }

func (s ownedInner) Owns(b blockalloc.Block) bool {
	own, err := s.Allocate(page)
	return err == nil && b == own
}

func TestString(t *testing.T) {
	p := alloctrace.Wrap(blockalloc.NewLimit(alloctrace.Wrap(&blockalloc.Heap{}), 1<<30), alloctrace.WithName("db"))
	const want = `Proxy "db"
└── Limit 1.0 GiB
    └── Proxy
        └── Heap`
	if got := blockalloc.Tree(p); got != want {
		t.Errorf("Tree:\n%s\nwant:\n%s", got, want)
	}
}
