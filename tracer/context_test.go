package tracer_test

import (
	"context"
	"errors"
	"testing"

	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/spantest"
	"github.com/alloctrace/alloctrace/tracer"
)

// TestFailureInContext: the context says whose failure it is, whatever the Proxy.
func TestFailureInContext(t *testing.T) {
	var spans recorder
	with := tracer.WithTracerProvider(&spans)
	p := alloctrace.Wrap(blockalloc.Null{}, alloctrace.WithHooks(tracer.Failures(with)))
	other := alloctrace.Wrap(blockalloc.Null{}, alloctrace.WithHooks(tracer.Failures(with)))
	ctx, r := tracer.Start(t.Context(), "region", p, with)
	_, bare := tracer.Start(t.Context(), "bare", blockalloc.Null{}, with)
	for name, c := range map[string]struct {
		view   *alloctrace.Proxy
		parent *spantest.Span
		want   int
	}{
		"the Proxy in the region's context":  {p.WithContext(ctx), spans.Spans[0], 1},
		"another Proxy in that context":      {other.WithContext(ctx), spans.Spans[0], 1},
		"the region's child":                 {r.Allocator().Child("child"), spans.Spans[0], 1},
		"a view in another region's context": {bare.Allocator().WithContext(ctx), spans.Spans[0], 1},
		"a Proxy around the region's":        {alloctrace.Wrap(r.Allocator(), alloctrace.WithHooks(tracer.Failures(with))).WithContext(ctx), spans.Spans[0], 1},
		"the region's view in an empty one":  {r.Allocator().WithContext(context.Background()), nil, 1},
		"a bare region's in an empty one":    {bare.Allocator().WithContext(context.Background()), nil, 0},
		"a quiet one":                        {r.Allocator().Quiet(), nil, 0},
	} {
		before := len(spans.Spans)
		_, _ = c.view.Allocate(blockalloc.BlockLayout(64))
		var want trace.SpanID
		if c.parent != nil {
			want = c.parent.Context.SpanID()
		}
		if n := len(spans.Spans) - before; n != c.want {
			t.Errorf("%s: the failure has %d spans, want %d", name, n, c.want)
		} else if n > 0 && spans.Spans[before].Parent != want {
			t.Errorf("%s: the failure is below span %v, want %v", name, spans.Spans[before].Parent, want)
		}
	}
}

// TestWhoAndForWhom: what is allocated by any part of the program, in a context, counts for
// the part, for the whole, and for each region that the context is inside of, once.
func TestWhoAndForWhom(t *testing.T) {
	var spans recorder
	with := tracer.WithTracerProvider(&spans)
	below := alloctest.New(t)
	for name, wrap := range map[string]func(blockalloc.Allocator) *alloctrace.Proxy{
		"alone":          func(a blockalloc.Allocator) *alloctrace.Proxy { return alloctrace.Wrap(a) },
		"around a Proxy": func(a blockalloc.Allocator) *alloctrace.Proxy { return alloctrace.Wrap(alloctrace.Wrap(a)) },
		"around a Limit of it": func(a blockalloc.Allocator) *alloctrace.Proxy {
			return alloctrace.Wrap(blockalloc.NewLimit(alloctrace.Wrap(a), 1<<30))
		},
	} {
		t.Run(name, func(t *testing.T) {
			mem := wrap(below)
			cache, index := mem.Child("cache"), mem.Child("index")
			ctx, outer := tracer.Start(t.Context(), "request", mem, with)
			in, inner := tracer.Start(ctx, "load", mem, with)
			blocks := []blockalloc.Block{
				allocate(t, mem, 1),                             // for nobody
				allocate(t, cache.WithContext(ctx), 10),         // for the request
				allocate(t, index.WithContext(in), 100),         // for both
				allocate(t, inner.Allocator().Child("x"), 1000), // for both
			}
			b, err := cache.AllocateContext(in, blockalloc.Layout{Size: 10_000, Align: 8})
			if err != nil {
				t.Fatal(err)
			}
			c, err := cache.WithContext(ctx).AllocateContext(t.Context(), blockalloc.Layout{Size: 100_000, Align: 8}) // for nobody
			if err != nil {
				t.Fatal(err)
			}
			if b, err = index.WithContext(in).Reallocate(b, 20_000); err != nil {
				t.Fatal(err)
			}
			free(t, cache.WithContext(in), blocks[1])
			for what, c := range map[string]struct {
				of                                    counter.Source
				allocated, freed, requested, operated int64
			}{
				"mem":    {mem, 131_111, 10_010, 131_111, 8},
				"cache":  {cache, 110_010, 10, 110_010, 4},
				"index":  {index, 20_100, 10_000, 20_100, 2},
				"outer":  {outer, 31_110, 10_010, 31_110, 6},
				"inner":  {inner, 31_100, 10_010, 31_100, 5},
				"no one": {tracer.FromContext(t.Context()), 0, 0, 0, 0},
			} {
				s := c.of.Stats()
				if s.AllocatedBytes != c.allocated || s.FreedBytes != c.freed || s.RequestedBytes != c.requested || s.Allocations+s.Reallocations+s.Frees != c.operated {
					t.Errorf("%s: %+v; want %+v", what, s, c)
				}
			}
			if s := outer.Stats(); s.PeakBytes != 21_110 || s.PeakBound != 0 {
				t.Errorf("outer: %v, want a peak of 21,110", s)
			}
			free(t, mem, blocks[0], blocks[2], blocks[3], b, c)
		})
	}
}

// lenient takes a reallocation of the empty block as an allocation.
type lenient struct{ blockalloc.Heap }

func (l *lenient) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	if b.IsZero() {
		return l.Allocate(blockalloc.Layout{Size: size, Align: 8})
	}
	if size == 77 {
		return b, blockalloc.ErrOutOfMemory
	}
	return l.Heap.Reallocate(b, size)
}

// TestRegionCountsAsTheProxy: operations of every kind, failures and those of a quiet view included.
func TestRegionCountsAsTheProxy(t *testing.T) {
	mem := alloctrace.Wrap(new(lenient))
	_, r := tracer.Start(t.Context(), "region", mem)
	view := r.Allocator()
	b, err := view.Reallocate(blockalloc.Block{}, 100)
	if err != nil {
		t.Fatal(err)
	}
	if b, err = view.Quiet().Reallocate(b, 200); err != nil {
		t.Fatal(err)
	}
	_, failures := view.Reallocate(b, 77)
	other := allocate(t, new(blockalloc.Heap), 64)
	failures = errors.Join(failures, view.Quiet().Free(other))
	if _, err := view.Allocate(blockalloc.Layout{Size: 8, Align: 3}); err == nil || failures == nil {
		t.Fatal("what must fail does not")
	}
	free(t, view.Quiet(), b, allocate(t, view.Quiet(), 50))
	want := mem.Stats()
	want.Classes = counter.Classes{} // a region has none
	if got := r.Stats(); got != want || want.Allocations != 2 || want.FailedReallocations != 1 {
		t.Errorf("the region has %+v, the Proxy %+v", got, want)
	}
}
