package alloctrace_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/internal/measure"
	"github.com/alloctrace/alloctrace/internal/region"
)

// within is a context inside a region, without what package tracer adds: who tests this package alone has no OpenTelemetry.
type within struct {
	context.Context
	region *region.Region
}

func (w within) Value(key any) any {
	if v := w.region.Value(key); v != nil {
		return v
	}
	return w.Context.Value(key)
}

type unobserved struct{}

func (unobserved) Failed(context.Context, string, uintptr, uintptr, error) {}
func (unobserved) Peaked(int64)                                            {}
func (unobserved) Name() string                                            { return "" }

// raw takes b apart and makes it again of its pointer and the layout that was asked for.
func raw(t testing.TB, b blockalloc.Block) blockalloc.Block {
	t.Helper()
	r, err := blockalloc.FromRaw(b.IntoRaw())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestRawBlocks: of blocks that FromRaw made, counters, hooks, regions and limits see what was granted and what was requested.
func TestRawBlocks(t *testing.T) {
	var pool blockalloc.Pool
	defer pool.Close()
	slab, err := blockalloc.NewSlab(&pool, 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	defer slab.Close()
	limit := blockalloc.NewLimit(&pool, 1<<20)
	for name, inner := range map[string]blockalloc.Allocator{
		"Pool":     &pool,
		"Slab":     slab,
		"System":   blockalloc.Default(),
		"Limit":    limit,
		"Fallback": blockalloc.NewFallback(blockalloc.Null{}, &pool),
		"Proxy":    alloctrace.Wrap(blockalloc.NewLocked(&pool)),
		"debug":    debug.New(&pool, debug.Options{}),
	} {
		t.Run(name, func(t *testing.T) {
			var r recorder
			p := alloctrace.Wrap(inner, alloctrace.WithHooks(&r))
			inside := &region.Region{Observe: unobserved{}}
			p = p.WithContext(within{t.Context(), inside})
			layout := blockalloc.Layout{Size: 3000, Align: 16}
			b := allocate(t, p, layout)
			found, ok := p.Find(b.Pointer())
			if s := p.Stats(); !ok || found != b || s.LiveRequestedBytes != 3000 || s.LiveBytes != int64(b.Size()) {
				t.Errorf("Find finds %v, %v, want %v; %+v", found, ok, b, s)
			}
			n, err := p.Reallocate(raw(t, b), 5000)
			if err != nil {
				t.Fatal(err)
			}
			if s := p.Stats(); s.LiveRequestedBytes != 5000 || s.LiveBytes != int64(n.Size()) {
				t.Errorf("after Reallocate: %+v, want %d bytes live, and 5000 of those requested", s, n.Size())
			}
			given := raw(t, n)
			if again, err := p.Reallocate(given, ^uintptr(0)); err == nil || again != given {
				t.Errorf("Reallocate to all addresses = %v, %v; want the block as it was given", again, err)
			}
			free(t, p, given)
			if err := p.Free(given); !errors.Is(err, blockalloc.ErrDoubleFree) && !errors.Is(err, blockalloc.ErrNotOwned) {
				t.Errorf("second free: %v", err)
			}
			s := p.Stats()
			if s.LiveRequestedBytes != 0 || s.LiveBytes != 0 || s.LiveBlocks != 0 || s.FailedFrees != 1 || s.FailedReallocations != 1 {
				t.Errorf("in the end: %+v", s)
			}
			if used := limit.Used(); name == "Limit" && used != 0 {
				t.Errorf("the limit has %d bytes used", used)
			}
			if got := inside.Totals(); got.AllocatedBytes != int64(b.Size()+n.Size()) || got.FreedBytes != got.AllocatedBytes {
				t.Errorf("the region has %+v", got)
			}
			want := []observation{
				{alloctrace.Event{Kind: alloctrace.Allocated, Addr: b.Addr(), Size: b.Size(), Align: 16}, nil},
				{alloctrace.Event{Kind: alloctrace.Reallocating, Addr: b.Addr(), Size: b.Size(), Align: 16}, nil},
				{alloctrace.Event{Kind: alloctrace.Reallocated, Addr: n.Addr(), Size: n.Size(), Align: 16}, nil},
				{alloctrace.Event{Kind: alloctrace.Reallocating, Addr: n.Addr(), Size: n.Size(), Align: 16}, nil},
				{alloctrace.Event{Kind: alloctrace.ReallocateFailed, Addr: n.Addr(), Size: n.Size(), Align: 16}, nil},
				{alloctrace.Event{Kind: alloctrace.Freeing, Addr: n.Addr(), Size: n.Size(), Align: 16}, nil},
			}
			if len(r.events) < len(want) {
				t.Fatalf("%d events", len(r.events))
			}
			for i, w := range want {
				if r.events[i].Event != w.Event {
					t.Errorf("event %d is %+v, want %+v", i, r.events[i].Event, w.Event)
				}
			}
			quiet := alloctrace.Wrap(inner)
			measure.WantAllocs(t, allocsOf(inner), func() {
				b, _ := quiet.Allocate(layout)
				b, _ = blockalloc.FromRaw(b.IntoRaw())
				_ = quiet.Free(b)
			})
		})
	}
}

// allocsOf returns how many allocations on the Go heap a pair costs in a itself, once debug's quarantine of 1024 blocks is full.
func allocsOf(a blockalloc.Allocator) float64 {
	layout := blockalloc.Layout{Size: 3000, Align: 16}
	pair := func() {
		b, _ := a.Allocate(layout)
		_ = a.Free(b)
	}
	for range 2000 {
		pair()
	}
	return testing.AllocsPerRun(1000, pair)
}

// plain is an allocator that is no Finder.
type plain struct{ pool *blockalloc.Pool }

func (p plain) Allocate(l blockalloc.Layout) (blockalloc.Block, error) { return p.pool.Allocate(l) }

func (p plain) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	return p.pool.Reallocate(b, size)
}

func (p plain) Free(b blockalloc.Block) error { return p.pool.Free(b) }

// TestRawWithoutFinder: where it cannot be known what was granted, a raw block is refused, with an error that says what helps,
// and nothing is counted.
func TestRawWithoutFinder(t *testing.T) {
	var pool blockalloc.Pool
	defer pool.Close()
	var r recorder
	p := alloctrace.Wrap(blockalloc.NewLocked(plain{&pool}), alloctrace.WithName("db"), alloctrace.WithHooks(&r))
	b := allocate(t, p, blockalloc.Layout{Size: 3000, Align: 1})
	given := raw(t, b)
	n, reallocated := p.Reallocate(given, 9000)
	for _, err := range []error{p.Free(given), reallocated} {
		if !errors.Is(err, errors.ErrUnsupported) || !errors.Is(err, blockalloc.ErrNotOwned) || !strings.Contains(fmt.Sprint(err), `proxy "db": block not owned by this allocator: unsupported operation: FromRaw made it, and alloctrace_test.plain, which is no Finder, cannot`) {
			t.Errorf("error %v", err)
		}
	}
	if s := p.Stats(); n != given || s.LiveBytes != int64(b.Size()) || s.FailedFrees != 1 || s.FailedReallocations != 1 {
		t.Errorf("%v, %+v", n, s)
	}
	if _, ok := blockalloc.FinderOf(p); ok {
		t.Error("it is a Finder")
	}
	free(t, p, b)
	kinds := make([]alloctrace.Kind, len(r.events))
	for i, e := range r.events {
		kinds[i] = e.Kind
	}
	if want := []alloctrace.Kind{
		alloctrace.Allocated, alloctrace.Reallocating, alloctrace.ReallocateFailed, alloctrace.Freeing, alloctrace.FreeFailed, alloctrace.Freeing,
	}; !slices.Equal(kinds, want) {
		t.Errorf("the events are %v, want %v", kinds, want)
	}
}
