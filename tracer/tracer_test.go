package tracer_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"os"
	"runtime"
	"sync"
	"testing"
	"unicode/utf8"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
	"github.com/alloctrace/alloctrace/internal/spantest"
	"github.com/alloctrace/alloctrace/internal/text"
	"github.com/alloctrace/alloctrace/internal/text/texttest"
	"github.com/alloctrace/alloctrace/tracer"
)

func allocate(t testing.TB, a blockalloc.Allocator, size uintptr) blockalloc.Block {
	t.Helper()
	b, err := a.Allocate(blockalloc.Layout{Size: size, Align: 8})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func free(t testing.TB, a blockalloc.Allocator, blocks ...blockalloc.Block) {
	t.Helper()
	for _, b := range blocks {
		if err := a.Free(b); err != nil {
			t.Fatal(err)
		}
	}
}

// numbers are the attributes of a region's span that count.
func numbers(allocated, freed, peak, allocations, reallocations, frees, failures int64) map[attribute.Key]attribute.Value {
	return map[attribute.Key]attribute.Value{
		"allocator.memory.allocated": attribute.Int64Value(allocated),
		"allocator.memory.freed":     attribute.Int64Value(freed),
		"allocator.memory.net":       attribute.Int64Value(allocated - freed),
		"allocator.memory.peak":      attribute.Int64Value(peak),
		"allocator.allocations":      attribute.Int64Value(allocations),
		"allocator.reallocations":    attribute.Int64Value(reallocations),
		"allocator.frees":            attribute.Int64Value(frees),
		"allocator.failures":         attribute.Int64Value(failures),
	}
}

func TestRegion(t *testing.T) {
	var spans recorder
	p := alloctest.New(t, alloctest.WithProxy(alloctrace.WithName("cache")))
	before := allocate(t, p, 5000)

	ctx, outer := tracer.Start(t.Context(), "request", p, tracer.WithTracerProvider(&spans), tracer.WithAttributes(attribute.String("user", "7")))
	a := allocate(t, outer.Allocator(), 100)
	_, inner := tracer.Start(ctx, "load", outer.Allocator()) // its span goes where the outer one goes
	b := allocate(t, inner.Allocator(), 1000)
	b, err := inner.Allocator().Reallocate(b, 3000)
	if err != nil {
		t.Fatal(err)
	}
	free(t, inner.Allocator(), before)
	inner.End()
	free(t, outer.Allocator(), a)
	free(t, outer.Allocator(), b)
	outer.End()
	outer.End()

	if len(spans.Spans) != 2 {
		t.Fatalf("%d spans, want 2", len(spans.Spans))
	}
	request, load := spans.Spans[0], spans.Spans[1]
	want := numbers(4100, 9100, 3100, 2, 1, 3, 0)
	want["user"] = attribute.StringValue("7")
	want["allocator.name"] = attribute.StringValue("cache")
	if !maps.Equal(request.Attributes, want) {
		t.Errorf("attributes of request %v\nwant %v", request.Attributes, want)
	}
	want = numbers(4000, 6000, 3000, 1, 1, 1, 0)
	want["allocator.name"] = attribute.StringValue("cache")
	if !maps.Equal(load.Attributes, want) {
		t.Errorf("attributes of load %v\nwant %v", load.Attributes, want)
	}
	if request.Name != "request" || load.Name != "load" || load.Parent != request.Context.SpanID() || request.Parent.IsValid() {
		t.Errorf("spans %q below %v and %q below %v", request.Name, request.Parent, load.Name, load.Parent)
	}
	if request.Ends != 1 || load.Ends != 1 || request.Scope != tracer.ScopeName {
		t.Errorf("ended %d and %d times, scope %q", request.Ends, load.Ends, request.Scope)
	}
	if s := p.Stats(); s.AllocatedBytes != 9100 {
		t.Errorf("the Proxy below: %v", s)
	}
}

// TestRegionsRunningAtOnce: each region has its own numbers, and the Proxy below
// has their sum.
func TestRegionsRunningAtOnce(t *testing.T) {
	const regions, steps = 8, 500
	var spans recorder
	p := alloctest.New(t)
	var wg sync.WaitGroup
	for i := range int64(regions) {
		wg.Go(func() {
			_, r := tracer.Start(t.Context(), fmt.Sprint(i), p, tracer.WithTracerProvider(&spans))
			defer r.End()
			for range steps {
				free(t, r.Allocator(), allocate(t, r.Allocator(), uintptr(100+i)))
			}
		})
	}
	wg.Wait()
	var sum int64
	for _, s := range spans.Spans {
		var i int64
		if _, err := fmt.Sscan(s.Name, &i); err != nil {
			t.Fatal(err)
		}
		if want := numbers(steps*(100+i), steps*(100+i), 100+i, steps, 0, steps, 0); !maps.Equal(s.Attributes, want) {
			t.Errorf("attributes of region %d %v\nwant %v", i, s.Attributes, want)
		}
		sum += steps * (100 + i)
	}
	if s := p.Stats(); s.AllocatedBytes != sum {
		t.Errorf("the Proxy below: %v; want %d bytes allocated", s, sum)
	}
}

// TestFailureHasOneSpan: by the innermost region, also when regions nest and the
// Proxy below has the Failures hook.
func TestFailureHasOneSpan(t *testing.T) {
	var spans recorder
	with := tracer.WithTracerProvider(&spans)
	p := alloctrace.Wrap(blockalloc.Null{}, alloctrace.WithHooks(tracer.Failures(with)))
	ctx, outer := tracer.Start(t.Context(), "outer", p, with)
	_, inner := tracer.Start(ctx, "inner", outer.Allocator(), with)
	fail := func(a blockalloc.Allocator) *spantest.Span {
		t.Helper()
		n := len(spans.Spans)
		_, err := a.Allocate(blockalloc.BlockLayout(4096))
		if len(spans.Spans) != n+1 {
			t.Fatalf("a failure made %d spans, want 1", len(spans.Spans)-n)
		}
		s := spans.Spans[n]
		want := map[attribute.Key]attribute.Value{
			"allocator.operation": attribute.StringValue("allocate"),
			"allocator.size":      attribute.Int64Value(4096),
			"allocator.align":     attribute.Int64Value(4096),
			"error.type":          attribute.StringValue("out_of_memory"),
		}
		if s.Name != "allocate" || s.Status != codes.Error || s.Description != err.Error() || s.Ends != 1 || !maps.Equal(s.Attributes, want) {
			t.Errorf("span %q, status %v %q, ended %d times, attributes %v", s.Name, s.Status, s.Description, s.Ends, s.Attributes)
		}
		return s
	}
	if s := fail(inner.Allocator()); s.Parent != spans.Spans[1].Context.SpanID() {
		t.Error("the failure in the inner region is not below its span")
	}
	if s := fail(outer.Allocator()); s.Parent != spans.Spans[0].Context.SpanID() {
		t.Error("the failure in the outer region is not below its span")
	}
	if s := fail(p); s.Parent.IsValid() {
		t.Error("the failure outside of regions is below a span")
	}
	inner.End()
	outer.End()
	if got := spans.Spans[0].Attributes["allocator.failures"]; got != attribute.Int64Value(2) {
		t.Errorf("allocator.failures of the outer region = %v, want 2", got.AsInterface())
	}
}

// TestRemoteParent: the span of another process has no provider of its own.
func TestRemoteParent(t *testing.T) {
	var spans recorder
	otel.SetTracerProvider(&spans)
	defer otel.SetTracerProvider(noop.NewTracerProvider())
	remote := trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{9}, SpanID: trace.SpanID{9}, TraceFlags: trace.FlagsSampled})
	_, r := tracer.Start(trace.ContextWithRemoteSpanContext(t.Context(), remote), "request", &blockalloc.Heap{})
	r.End()
	if len(spans.Spans) != 1 || spans.Spans[0].Parent != remote.SpanID() {
		t.Errorf("%d spans below a remote parent, want 1 that is its child", len(spans.Spans))
	}
}

func TestFailureBudget(t *testing.T) {
	var spans recorder
	_, r := tracer.Start(t.Context(), "storm", blockalloc.Null{}, tracer.WithTracerProvider(&spans), tracer.WithMaxFailures(3))
	for range 100 {
		_, _ = r.Allocator().Allocate(blockalloc.BlockLayout(64))
	}
	r.End()
	if len(spans.Spans) != 4 {
		t.Errorf("%d spans, want the region and 3 failures", len(spans.Spans))
	}
	if got := spans.Spans[0].Attributes["allocator.failures"]; got != attribute.Int64Value(100) {
		t.Errorf("allocator.failures = %v, want 100", got.AsInterface())
	}
}

// TestErrorTypes: the most specific error has its name, of what a real Limit returns too.
func TestErrorTypes(t *testing.T) {
	for err, want := range map[error]string{
		blockalloc.ErrOutOfMemory:                                   "out_of_memory",
		fmt.Errorf("wrapped: %w", blockalloc.ErrNotOwned):           "not_owned",
		errors.Join(blockalloc.ErrOutOfMemory, blockalloc.ErrLimit): "limit",
		context.Canceled: blockalloc.ErrorTypeOther,
	} {
		var spans recorder
		h := tracer.Failures(tracer.WithTracerProvider(&spans))
		h.Observe(t.Context(), alloctrace.Event{Kind: alloctrace.FreeFailed}, err)
		if got := spans.Spans[0].Attributes["error.type"].AsString(); got != want || spans.Spans[0].Name != "free" {
			t.Errorf("error.type of %v = %q in span %q, want %q in free", err, got, spans.Spans[0].Name, want)
		}
	}
	var spans recorder
	p := alloctrace.Wrap(blockalloc.NewLimit(new(blockalloc.Heap), 4096), alloctrace.WithHooks(tracer.Failures(tracer.WithTracerProvider(&spans))))
	_, _ = p.Allocate(blockalloc.BlockLayout(8192))
	if got := spans.Spans[0].Attributes["error.type"].AsString(); got != "limit" {
		t.Errorf("error.type of a Limit's error = %q, want limit", got)
	}
}

// TestSizesBeyondInt64: an attribute has 63 bits; a larger size is the largest of these.
func TestSizesBeyondInt64(t *testing.T) {
	const half = ^uintptr(0)>>1 + 1 // 2^63, or 2^31
	for size, want := range map[uintptr]int64{
		0: 0, 4096: 4096, half - 1: int64(half - 1),
		half:            int64(min(uint64(half), math.MaxInt64)),
		^uintptr(0):     int64(min(uint64(^uintptr(0)), math.MaxInt64)),
		^uintptr(0) - 7: int64(min(uint64(^uintptr(0)-7), math.MaxInt64)),
	} {
		var spans recorder
		p := alloctrace.Wrap(blockalloc.Null{}, alloctrace.WithHooks(tracer.Failures(tracer.WithTracerProvider(&spans))))
		_, _ = p.Allocate(blockalloc.Layout{Size: size, Align: 8})
		_, _ = p.Allocate(blockalloc.Layout{Size: 8, Align: size})
		n := 0
		for _, s := range spans.Spans {
			for _, key := range []attribute.Key{"allocator.size", "allocator.align"} {
				switch got := s.Attributes[key].AsInt64(); got {
				case 8:
				case want:
					n++
				default:
					t.Errorf("%s of %d = %d, want %d", key, size, got, want)
				}
			}
		}
		if n < 1 {
			t.Errorf("no attribute of %d", size)
		}
	}
}

// TestFromContext: the region travels with the context, and hooks below see its
// span.
func TestFromContext(t *testing.T) {
	if r := tracer.FromContext(t.Context()); r != nil {
		t.Errorf("FromContext of an empty context = %v", r)
	}
	var spans recorder
	var seen []trace.SpanContext
	p := alloctest.New(t, alloctest.WithProxy(alloctrace.WithHooks(alloctrace.HookFunc(func(ctx context.Context, _ alloctrace.Event, _ error) {
		seen = append(seen, trace.SpanContextFromContext(ctx))
	}))))
	ctx, r := tracer.Start(t.Context(), "work", p, tracer.WithTracerProvider(&spans))
	if tracer.FromContext(ctx) != r || r.Name() != "work" {
		t.Error("FromContext does not return the region that Start put there")
	}
	b := allocate(t, r.Allocator(), 64)
	r.End()
	free(t, p, b)
	if len(seen) != 2 || !seen[0].Equal(spans.Spans[0].Context) || seen[1].IsValid() {
		t.Errorf("the hook below saw the spans %v", seen)
	}
	if s := r.Stats(); s.LiveBytes != 64 {
		t.Errorf("the region's block was freed outside: %v, want 64 bytes", s)
	}
}

// TestPanics: a panic is recorded by the span as if its own End were deferred, goes on with the
// same value, and ends the regions around it; so does Goexit.
func TestPanics(t *testing.T) {
	failure := errors.New("no")
	for name, c := range map[string]struct {
		leave func()
		want  any // what goes on
	}{
		"a value":   {func() { panic("oh") }, "oh"},
		"an error":  {func() { panic(failure) }, failure},
		"a nil":     {func() { panic(nil) }, new(runtime.PanicNilError)},
		"a runtime": {func() { _ = []int{}[len(os.Args)*0+1] }, nil},
		"Goexit":    {runtime.Goexit, nil},
		"no panic":  {func() {}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			var spans recorder
			with := tracer.WithTracerProvider(&spans)
			var got any
			var wg sync.WaitGroup
			wg.Go(func() {
				defer func() { got = recover() }()
				ctx, outer := tracer.Start(t.Context(), "outer", blockalloc.Null{}, with)
				defer outer.End()
				_, inner := tracer.Start(ctx, "inner", outer.Allocator(), with)
				defer inner.End() // a second End has nothing to do, nor to recover
				defer inner.End()
				c.leave()
			})
			wg.Wait()
			if err, ok := got.(runtime.Error); name == "a runtime" && !ok || c.want != nil && got != c.want && !(name == "a nil" && ok) {
				t.Errorf("the panic goes on with %v, %v, want %v", got, err, c.want)
			}
			for _, s := range spans.Spans {
				if s.Ends != 1 || got == nil && len(s.Panics) > 0 || got != nil && (len(s.Panics) != 1 || s.Panics[0] != got) {
					t.Errorf("span %s has ended %d times and recorded %v; the panic is %v", s.Name, s.Ends, s.Panics, got)
				}
				if _, ok := s.Attributes["allocator.failures"]; !ok {
					t.Errorf("span %s lacks its numbers", s.Name)
				}
			}
			if len(spans.Spans) != 2 || (name == "Goexit" || name == "no panic") != (got == nil) {
				t.Errorf("%d spans, and the panic is %v", len(spans.Spans), got)
			}
		})
	}
}

// TestUglyNames: names and the texts of errors are valid UTF-8, and bounded.
func TestUglyNames(t *testing.T) {
	for _, ugly := range texttest.Table() {
		var spans recorder
		refuse := failing.If(new(blockalloc.Heap), func(failing.Call) bool { return true })
		p := alloctrace.Wrap(refuse, alloctrace.WithName(ugly.Text))
		_, r := tracer.Start(t.Context(), ugly.Text, p, tracer.WithTracerProvider(&spans))
		_, _ = r.Allocator().Allocate(blockalloc.BlockLayout(64))
		r.End()
		tracer.Failures(tracer.WithTracerProvider(&spans)).Observe(t.Context(), alloctrace.Event{Kind: alloctrace.FreeFailed, Addr: 64}, errors.New(ugly.Text))
		for _, s := range spans.Spans {
			for what, got := range map[string]string{
				"name": s.Name, "description": s.Description, "allocator.name": s.Attributes["allocator.name"].AsString(),
			} {
				if !utf8.ValidString(got) || len(got) > text.MaxText {
					t.Errorf("%s: %s has %d bytes, valid: %t", ugly.Case, what, len(got), utf8.ValidString(got))
				}
			}
		}
		if name := spans.Spans[0].Name; utf8.ValidString(ugly.Text) && len(ugly.Text) <= text.MaxName && name != ugly.Text {
			t.Errorf("%s: the name has become %q", ugly.Case, name)
		}
	}
}

// TestOutsideOfRegions: the methods of the region that there is none of can be called.
func TestOutsideOfRegions(t *testing.T) {
	r := tracer.FromContext(t.Context())
	if s := r.Stats(); r.Name() != "" || s.Allocations != 0 {
		t.Errorf("no region has the name %q and %v", r.Name(), s)
	}
	b := allocate(t, r.Allocator(), 64)
	if again := tracer.FromContext(t.Context()); r.Allocator() != again.Allocator() {
		t.Error("each has an allocator of its own, which does not own the blocks of the others")
	}
	free(t, r.Allocator(), b)
	r.End()
}

// TestOffUnlessAsked: without a provider nothing is recorded, and the numbers are
// there all the same.
func TestOffUnlessAsked(t *testing.T) {
	ctx, r := tracer.Start(t.Context(), "work", alloctest.New(t), tracer.WithTracerProvider(nil))
	b := allocate(t, r.Allocator(), 64)
	if trace.SpanFromContext(ctx).IsRecording() {
		t.Error("a span is recorded without being asked for")
	}
	r.End()
	if s := r.Stats(); s.AllocatedBytes != 64 {
		t.Errorf("%v; want 64 bytes allocated", s)
	}
	free(t, r.Allocator(), b)
}
