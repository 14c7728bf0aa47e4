// Package tracer makes OpenTelemetry spans of regions of work, so that a trace
// shows what each part of a request allocated outside the Go heap:
//
//	ctx, region := tracer.Start(ctx, "load-index", mem)
//	defer region.End()
//	index, err := load(ctx, region.Allocator())
//
// A region is one span. Single allocations are not spans, but for those that
// fail. When it ends, the span has these attributes (bytes are granted bytes):
//
//	allocator.name                string  the Proxy's name, if it has one
//	allocator.memory.allocated    By      allocated inside the region, in all
//	allocator.memory.freed        By      freed inside the region, in all
//	allocator.memory.net          By      allocated - freed; negative if more was freed
//	allocator.memory.peak         By      the highest that allocated - freed was, as exactly as counter.Stats has it
//	allocator.allocations         count   successful allocations
//	allocator.reallocations       count   successful reallocations
//	allocator.frees               count   successful frees
//	allocator.failures            count   operations that failed
//
// The package uses the OpenTelemetry API alone. Without a TracerProvider, given
// by [WithTracerProvider], by the span in the context or set globally, no span is
// recorded; the region's numbers can still be read.
package tracer

import (
	"context"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/region"
	"github.com/alloctrace/alloctrace/internal/text"
)

// ScopeName is the instrumentation scope of this package's spans.
const ScopeName = "github.com/alloctrace/alloctrace/tracer"

// A Region is a stretch of work whose allocations are counted, and become the attributes of
// one span. It may be used by several goroutines at once.
type Region struct {
	name   string
	span   trace.Span
	view   *alloctrace.Proxy
	ended  atomic.Bool
	inSpan bool // the span is the caller's, who ends it
	inside region.Region

	failures failures
}

var (
	_ counter.Source  = (*Region)(nil)
	_ region.Observer = (*observer)(nil)
)

// An observer is a Region, which has no exported method for it.
type observer Region

func (o *observer) Failed(ctx context.Context, op string, size, align uintptr, err error) {
	o.failures.failed(ctx, op, size, align, err)
}

// Start begins a region of work, as a child of the span in ctx if there is one. The context
// that it returns is inside the region, and holds its span.
//
// What is allocated and freed in that context, or in one made from it, is charged to the
// region and to all regions that ctx is inside of. In the context are: [Region.Allocator], which
// is mem; every Proxy and child that is given it by [alloctrace.Proxy.WithContext]; and
// [alloctrace.Proxy.AllocateContext]. Regions that run at the same time do not disturb each
// other's numbers.
//
// An operation costs what it costs to count it once more for each region around it. A region
// takes a kilobyte until it is busy, see [counter.Counter], besides its span.
func Start(ctx context.Context, name string, mem blockalloc.Allocator, opts ...Option) (context.Context, *Region) {
	c := newConfig(regionFailures, opts)
	r := &Region{name: name}
	ctx, r.span = c.tracer(ctx).Start(ctx, text.Name(name), trace.WithAttributes(c.attributes...))
	return r.start(ctx, mem, c)
}

// start begins r, whose span is in ctx.
func (r *Region) start(ctx context.Context, mem blockalloc.Allocator, c config) (context.Context, *Region) {
	r.failures.init(c)
	r.inside.Outer, r.inside.Observe = region.From(ctx), (*observer)(r)
	ctx = region.NewContext(ctx, &r.inside)
	p, ok := mem.(*alloctrace.Proxy)
	if !ok {
		p = alloctrace.Wrap(mem)
	}
	if p.Name() != "" {
		r.span.SetAttributes(attribute.String("allocator.name", text.Name(p.Name())))
	}
	r.view = p.WithContext(ctx)
	return ctx, r
}

// InSpan is [Start] without a span of its own: the region's attributes are set on the span in ctx,
// which the caller ends after [Region.End]. So the span of a server's request, such as otelhttp's,
// says what the request has allocated.
func InSpan(ctx context.Context, mem blockalloc.Allocator, opts ...Option) (context.Context, *Region) {
	r := &Region{name: "", inSpan: true, span: trace.SpanFromContext(ctx)}
	return r.start(ctx, mem, newConfig(regionFailures, opts))
}

// FromContext returns the innermost region that ctx is inside of, nil if there is none. The
// methods of a nil Region can be called: it has no name, counts nothing, and allocates from
// [blockalloc.Default].
func FromContext(ctx context.Context) *Region {
	if r := region.From(ctx); r != nil {
		return (*Region)(r.Observe.(*observer))
	}
	return nil
}

// Name returns the name given to [Start].
func (r *Region) Name() string {
	if r == nil {
		return ""
	}
	return r.name
}

// Allocator returns the allocator that was given to [Start], in the region's context. Blocks may
// outlive the region. They are freed through any view of the Proxy or child that allocated them:
// Allocator is none of a child's. It stays usable after End, but the span
// does not show what it does then. A nil Region has a Proxy around [blockalloc.Default], the
// same for all.
func (r *Region) Allocator() *alloctrace.Proxy {
	if r == nil {
		return outside()
	}
	return r.view
}

var outside = sync.OnceValue(func() *alloctrace.Proxy { return alloctrace.Wrap(blockalloc.Default()) })

// Stats returns the region's numbers so far.
func (r *Region) Stats() counter.Stats {
	if r == nil {
		return counter.Stats{}
	}
	return r.inside.Stats()
}

// End ends the region and its span. A second End does nothing.
//
// Where it is deferred itself, as in defer region.End(), the span records a panic, as if the
// span's own End were deferred. The panic goes on with the same value.
func (r *Region) End() {
	if r == nil || r.ended.Swap(true) {
		return
	}
	if r.span.IsRecording() {
		s := r.Stats()
		r.span.SetAttributes(
			attribute.Int64("allocator.memory.allocated", s.AllocatedBytes),
			attribute.Int64("allocator.memory.freed", s.FreedBytes),
			attribute.Int64("allocator.memory.net", s.AllocatedBytes-s.FreedBytes),
			attribute.Int64("allocator.memory.peak", s.PeakBytes),
			attribute.Int64("allocator.allocations", s.Allocations),
			attribute.Int64("allocator.reallocations", s.Reallocations),
			attribute.Int64("allocator.frees", s.Frees),
			attribute.Int64("allocator.failures", s.Failures()),
		)
	}
	if r.inSpan {
		return
	}
	if v := recover(); v != nil { // the SDK's End recovers only where it is deferred
		defer r.span.End()
		panic(v)
	}
	r.span.End()
}
