package tracer_test

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/spantest"
	"github.com/alloctrace/alloctrace/tracer"
)

// wantNumbers checks attributes of a span, of which 0 stands for one that it must not have.
func wantNumbers(t *testing.T, s *spantest.Span, want map[string]int64) {
	t.Helper()
	for name, value := range want {
		got, ok := s.Attributes[attribute.Key(name)]
		if got.AsInt64() != value || ok != (value != 0) {
			t.Errorf("span %q: %s is %v (%t), want %d", s.Name, name, got.AsInterface(), ok, value)
		}
	}
}

// TestMove: a block that one request hands on to another is the other's from then on, and what is
// around both has it throughout.
func TestMove(t *testing.T) {
	var spans recorder
	with := tracer.WithTracerProvider(&spans)
	mem := alloctrace.Wrap(new(blockalloc.Heap))
	ctx, server := tracer.Start(t.Context(), "server", mem, with)
	_, from := tracer.Start(ctx, "from", mem, with)
	_, to := tracer.Start(ctx, "to", mem, with)
	b := allocate(t, from.Allocator(), 4096)
	from.Move(b, to)
	from.Move(blockalloc.Block{}, to) // is nothing
	if f, s := from.Stats(), to.Stats(); f.LiveBytes != 0 || f.LiveBlocks != 0 || f.AllocatedBytes != 4096 || s.LiveBytes != 4096 || s.LiveBlocks != 1 || s.AllocatedBytes != 0 || s.PeakBytes != 4096 {
		t.Errorf("after Move: from %v, to %v", f, s)
	}
	if s := to.Summary(); s.MovedInBytes != 4096 || from.Summary().MovedOutBytes != 4096 {
		t.Errorf("moved in %d bytes, out %d, want 4096", s.MovedInBytes, from.Summary().MovedOutBytes)
	}
	if s := server.Summary(); s.LiveBytes != 4096 || s.PeakBytes != 4096 || s.MovedInBytes != 0 || s.MovedOutBytes != 0 {
		t.Errorf("around both: %+v", s)
	}
	free(t, to.Allocator(), b)
	var outside *tracer.Region
	outside.Move(b, to)
	to.Move(b, outside)
	if s := to.Stats(); s.LiveBytes != 0 || s.PeakBytes != 4096 {
		t.Errorf("moved from outside and back: %v", s)
	}
	for _, r := range []*tracer.Region{from, to, server} {
		r.End()
	}
	wantNumbers(t, spans.Spans[1], map[string]int64{"allocator.memory.moved_out": 4096, "allocator.memory.moved_in": 0, "allocator.memory.net": 4096})
	wantNumbers(t, spans.Spans[2], map[string]int64{"allocator.memory.moved_out": 4096, "allocator.memory.moved_in": 8192, "allocator.memory.freed": 4096})
}

// TestChildren: what children do in a region's context stands on its span, whatever context the
// region around it has.
func TestChildren(t *testing.T) {
	var spans recorder
	with := tracer.WithTracerProvider(&spans)
	mem := alloctrace.Wrap(new(blockalloc.Heap))
	ctx, r := tracer.Start(t.Context(), "request", mem, with)
	cache, parse := mem.Child("cache").WithContext(ctx), mem.Child("parse")
	kept := allocate(t, cache, 4096)
	b, err := parse.AllocateContext(ctx, blockalloc.BlockLayout(64))
	if err != nil {
		t.Fatal(err)
	}
	free(t, parse.WithContext(ctx), b)
	free(t, r.Allocator(), allocate(t, r.Allocator(), 128))
	s := r.Summary()
	want := []tracer.ChildShare{{Name: "cache", AllocatedBytes: 4096}, {Name: "parse", AllocatedBytes: 64, FreedBytes: 64}}
	if len(s.Children) != 2 || s.Children[0] != want[0] || s.Children[1] != want[1] {
		t.Errorf("%+v, want %+v", s.Children, want)
	}
	r.End()
	wantNumbers(t, spans.Spans[0], map[string]int64{
		"allocator.child.cache.allocated": 4096, "allocator.child.parse.allocated": 64, "allocator.child.parse.freed": 64,
		"allocator.memory.allocated": 4096 + 64 + 128, "allocator.memory.peak": 4096 + 128, "allocator.memory.moved_in": 0,
	})
	free(t, cache, kept)
}

// TestWaits: how often and how long allocations in a region waited for room, at a Limit of their own
// Proxy and at one below another Proxy.
func TestWaits(t *testing.T) {
	for name, wrap := range map[string]func(blockalloc.Allocator) blockalloc.Allocator{
		"limit":         func(a blockalloc.Allocator) blockalloc.Allocator { return a },
		"below a Proxy": func(a blockalloc.Allocator) blockalloc.Allocator { return alloctrace.Wrap(a) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var spans recorder
				mem := alloctrace.Wrap(wrap(blockalloc.NewLimit(new(blockalloc.Heap), 100)))
				outer, server := tracer.Start(t.Context(), "server", mem, tracer.WithTracerProvider(&spans))
				ctx, r := tracer.Start(outer, "request", mem, tracer.WithTracerProvider(&spans))
				first := allocate(t, mem, 100)
				go func() {
					time.Sleep(time.Second)
					free(t, mem, first)
				}()
				b, err := mem.AllocateContext(ctx, blockalloc.BlockLayout(64))
				if err != nil {
					t.Fatal(err)
				}
				late, cancel := context.WithTimeout(ctx, 2*time.Second)
				defer cancel()
				if _, err := mem.AllocateContext(late, blockalloc.BlockLayout(64)); !errors.Is(err, context.DeadlineExceeded) {
					t.Errorf("waiting in vain: %v", err)
				}
				if _, err := mem.AllocateContext(ctx, blockalloc.BlockLayout(128)); !errors.Is(err, blockalloc.ErrLimit) { // can never fit
					t.Errorf("more than the limit: %v", err)
				}
				for _, r := range []*tracer.Region{r, server} {
					if s := r.Summary(); s.Waits != 2 || s.WaitTime != 3*time.Second {
						t.Errorf("%s waited %d times, %v, want twice, 3 s", r.Name(), s.Waits, s.WaitTime)
					}
				}
				r.End()
				server.End()
				wantNumbers(t, spans.Spans[1], map[string]int64{"allocator.waits": 2, "allocator.wait_time": int64(3 * time.Second)})
				free(t, mem, b)
			})
		})
	}
}

// TestInSpan: the span in the context gets the region's attributes, and its owner ends it.
func TestInSpan(t *testing.T) {
	var spans recorder
	mem := alloctrace.Wrap(new(blockalloc.Heap))
	ctx, own := spans.Tracer("server").Start(t.Context(), "GET /")
	ctx, r := tracer.InSpan(ctx, mem, tracer.WithAttributes(attribute.Int("more", 1)))
	if tracer.FromContext(ctx) != r || trace.SpanFromContext(ctx) != own {
		t.Error("the context is not inside of the region and its span")
	}
	free(t, r.Allocator(), allocate(t, mem.WithContext(ctx), 64))
	r.End()
	r.End()
	s := spans.Spans[0]
	if s.Ends != 0 || len(spans.Spans) != 1 {
		t.Errorf("the span has ended %d times, and there are %d, want 0 and 1", s.Ends, len(spans.Spans))
	}
	wantNumbers(t, s, map[string]int64{"allocator.memory.allocated": 64, "allocator.frees": 1, "more": 1})
}

// TestBudget: no more spans than that are started in any second, whatever asks for them. The
// others are counted, and the region around them says so.
func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var spans recorder
		b := tracer.NewBudget(10)
		with := []tracer.Option{tracer.WithTracerProvider(&spans), tracer.WithBudget(b)}
		mem := alloctrace.Wrap(new(blockalloc.Heap))
		ctx, server := tracer.Start(t.Context(), "server", mem, with[0])
		var starts []time.Time
		begin := time.Now()
		for range 10 { // two goroutines at each instant, whose clocks are one
			var both sync.WaitGroup
			for range 2 {
				both.Go(func() {
					ctx, r := tracer.Start(ctx, "request", mem, with...)
					free(t, r.Allocator(), allocate(t, mem.WithContext(ctx), 64))
					if s := r.Stats(); s.AllocatedBytes != 64 || s.LiveBytes != 0 {
						t.Errorf("with or without a span: %v", s)
					}
					r.End()
				})
			}
			both.Wait()
			for len(starts) < len(spans.Spans)-1 {
				starts = append(starts, time.Now())
			}
			time.Sleep(300 * time.Millisecond)
		}
		for i := range starts {
			if i >= 10 && starts[i].Sub(starts[i-10]) < time.Second {
				t.Errorf("the spans %d to %d were started within %v, want 10 a second", i-10, i, starts[i].Sub(starts[i-10]))
			}
		}
		if n, want := int64(len(starts)), int64(20); n+b.Suppressed() != want || n < 20 && b.Suppressed() == 0 {
			t.Errorf("%d spans and %d suppressed in %v, want %d in all", n, b.Suppressed(), time.Since(begin), want)
		}
		bad, r := tracer.Start(ctx, "failing", blockalloc.Null{}, with...)
		for range 50 {
			_, _ = r.Allocator().WithContext(bad).Allocate(blockalloc.BlockLayout(64))
		}
		r.End()
		inside := r.Summary().SuppressedSpans
		if s := r.Stats(); s.FailedAllocations != 50 || inside == 0 || inside > 32 {
			t.Errorf("%v, %d spans suppressed inside; want 50 failures, of which 32 may have a span", s, inside)
		}
		server.End()
		if got := server.Summary().SuppressedSpans + inside; got != b.Suppressed() {
			t.Errorf("regions say that %d spans were suppressed, the budget %d", got, b.Suppressed())
		}
		wantNumbers(t, spans.Spans[0], map[string]int64{"allocator.spans.suppressed": server.Summary().SuppressedSpans})
	})
}

// TestBudgetReserved: regions leave a tenth of the budget to failures.
func TestBudgetReserved(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var spans recorder
		b := tracer.NewBudget(20)
		with := []tracer.Option{tracer.WithTracerProvider(&spans), tracer.WithBudget(b)}
		for range 100 {
			_, r := tracer.Start(t.Context(), "request", blockalloc.Null{}, with...)
			r.End()
		}
		failing := alloctrace.Wrap(blockalloc.Null{}, alloctrace.WithHooks(tracer.Failures(with...)))
		for range 5 {
			_, _ = failing.Allocate(blockalloc.BlockLayout(64))
		}
		if requests, failures := len(spans.named(t, "request")), len(spans.named(t, "allocate")); requests != 18 || failures != 2 || b.Suppressed() != 82+3 {
			t.Errorf("%d regions and %d failures have spans, want 18 and 2 of 20; %d are suppressed", requests, failures, b.Suppressed())
		}
		time.Sleep(time.Second)
		_, r := tracer.Start(t.Context(), "request", blockalloc.Null{}, with...)
		r.End()
		if n := len(spans.named(t, "request")); n != 19 {
			t.Errorf("a second later %d regions have spans, want one more", n)
		}
	})
}

// TestBudgetIsPositive: a budget of nothing is refused.
func TestBudgetIsPositive(t *testing.T) {
	defer func() {
		if recover() == nil {
			t.Error("NewBudget(0) does not panic")
		}
	}()
	tracer.NewBudget(0)
}
