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
//	allocator.memory.peak         By      the most that was live of what was allocated inside, less what was freed inside
//	allocator.allocations         count   successful allocations
//	allocator.reallocations       count   successful reallocations
//	allocator.frees               count   successful frees
//	allocator.failures            count   operations that failed
//
// and, if they are not zero:
//
//	allocator.memory.moved_in     By      in blocks that were handed to the region by Region.Move
//	allocator.memory.moved_out    By      in blocks that it handed on
//	allocator.waits               count   allocations that waited for room, see blockalloc.Limit
//	allocator.wait_time           ns      how long they waited in all
//	allocator.spans.suppressed    count   spans inside that were not started, see Budget
//	allocator.escaped.blocks      count   allocated inside and still live, where Lifetimes knows: an estimate if it samples
//	allocator.escaped.bytes       By      their bytes
//	allocator.escaped.error       By      the standard error of the bytes
//	allocator.child.NAME.allocated  By    allocated by a child, of the first 8 that allocated or freed inside
//	allocator.child.NAME.freed      By    freed by it
//
// While a trace of the Go runtime is taken, by runtime/trace.Start or a
// runtime/trace.FlightRecorder, a region is also a task of it, with the region's name. Messages
// in it, of the category "allocator", say when its peak reaches another power of two, what
// fails, what waits for room, and the totals at its end: see go tool trace. The task is that of
// a region's beginning: a trace that is started later has only the messages, without one.
//
// The package uses the OpenTelemetry API alone. Without a TracerProvider, given
// by [WithTracerProvider], by the span in the context or set globally, no span is
// recorded; the region's numbers can still be read.
package tracer

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

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
	name     string
	context  context.Context // what the region is in, with its span
	span     trace.Span
	borrowed bool // the span is the caller's, or none: End leaves it open
	ended    atomic.Bool
	mem      blockalloc.Allocator
	view     atomic.Pointer[alloctrace.Proxy] // see Allocator; nil until it is needed

	inside   region.Region
	failures failures
	tag      atomic.Pointer[tag]                  // nil until a block is sampled
	given    atomic.Pointer[[]attribute.KeyValue] // by SetAttributes; nil if nothing is
}

var _ counter.Source = (*Region)(nil)

// An inner is a Region as the context of what is inside, and as what is behind the region's
// counts. It is a type of its own for Region not to have the methods.
type inner Region

var (
	_ context.Context = (*inner)(nil)
	_ region.Observer = (*inner)(nil)
)

func (i *inner) Deadline() (time.Time, bool) { return i.context.Deadline() }
func (i *inner) Done() <-chan struct{}       { return i.context.Done() }
func (i *inner) Err() error                  { return i.context.Err() }

func (i *inner) Value(key any) any {
	if v := i.inside.Value(key); v != nil {
		return v
	}
	return i.context.Value(key)
}

func (i *inner) Name() string { return i.name }

func (i *inner) Failed(ctx context.Context, op string, size, align uintptr, err error) {
	i.failures.failed(ctx, op, size, align, err)
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
// A region costs an allocation of 224 bytes on the Go heap besides its span, and another one
// if there are options. An operation costs what it costs to count it once more for each region
// around it: an atomic operation and a few additions.
func Start(ctx context.Context, name string, mem blockalloc.Allocator, opts ...Option) (context.Context, *Region) {
	r := newRegion(ctx, name, mem, opts)
	if !r.failures.config.budget.take() {
		suppressed(ctx)
		r.span, r.borrowed = noSpan, true
		return r.enter(ctx)
	}
	if attributes := r.failures.config.attributes; len(attributes) > 0 {
		r.context, r.span = r.failures.config.tracer(ctx).Start(ctx, text.Name(name), trace.WithAttributes(attributes...))
	} else {
		r.context, r.span = r.failures.config.tracer(ctx).Start(ctx, text.Name(name))
	}
	return r.enter(ctx)
}

// InSpan is [Start] without a span of its own: the region's attributes are set on the span in ctx,
// which the caller ends after [Region.End]. So the span of a server's request, such as otelhttp's,
// says what the request has allocated.
func InSpan(ctx context.Context, mem blockalloc.Allocator, opts ...Option) (context.Context, *Region) {
	r := newRegion(ctx, "", mem, opts)
	r.span, r.borrowed = trace.SpanFromContext(ctx), true
	if attributes := r.failures.config.attributes; len(attributes) > 0 {
		r.span.SetAttributes(attributes...)
	}
	return r.enter(ctx)
}

func newRegion(ctx context.Context, name string, mem blockalloc.Allocator, opts []Option) *Region {
	if mem == nil {
		panic("tracer: a region with no allocator: pass one, such as blockalloc.Default()")
	}
	r := &Region{name: name, context: ctx, mem: mem}
	r.failures.init(regionConfig(opts))
	r.inside.Outer, r.inside.Observe = region.From(ctx), (*inner)(r)
	return r
}

var noSpan = trace.SpanFromContext(context.Background())

// suppressed counts a span in ctx that was not started.
func suppressed(ctx context.Context) {
	if r := FromContext(ctx); r != nil {
		r.failures.suppressed.Add(1)
	}
}

// FromContext returns the innermost region that ctx is inside of, nil if there is none. The
// methods of a nil Region can be called: it has no name, counts nothing, and allocates from
// [blockalloc.Default].
func FromContext(ctx context.Context) *Region {
	if r := region.From(ctx); r != nil {
		return (*Region)(r.Observe.(*inner))
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
// same for all. The first call costs what [alloctrace.Proxy.WithContext] costs.
func (r *Region) Allocator() *alloctrace.Proxy {
	if r == nil {
		return outside()
	}
	if v := r.view.Load(); v != nil {
		return v
	}
	p, ok := r.mem.(*alloctrace.Proxy)
	if !ok {
		p = alloctrace.Wrap(r.mem)
	}
	r.view.CompareAndSwap(nil, p.WithContext((*inner)(r)))
	return r.view.Load()
}

var outside = sync.OnceValue(func() *alloctrace.Proxy { return alloctrace.Wrap(blockalloc.Default()) })

// Move charges b, which was allocated in r, to the region to instead: for a block that one
// request hands on to another. Regions around both have it before and after. What r has
// allocated stays what it was. What it has live and its net lose the block, and to gains it. A nil
// Region is what is outside of all regions.
func (r *Region) Move(b blockalloc.Block, to *Region) {
	if b.IsZero() {
		return
	}
	r.counts().Move(b.Size(), to.counts())
}

func (r *Region) counts() *region.Region {
	if r == nil {
		return nil
	}
	return &r.inside
}

// End ends the region and its span. A second End does nothing.
//
// Where it is deferred itself, as in defer region.End(), the span records a panic, as if the
// span's own End were deferred. The panic goes on with the same value.
func (r *Region) End() {
	if r == nil || r.ended.Swap(true) {
		return
	}
	if t := r.tag.Load(); t != nil {
		t.end()
	}
	if r.span.IsRecording() {
		r.span.SetAttributes(r.attributes()...)
	}
	if r.borrowed {
		r.leave(false)
		return
	}
	if v := recover(); v != nil { // the SDK's End recovers only where it is deferred
		r.leave(true)
		defer r.span.End()
		panic(v)
	}
	r.leave(false)
	r.span.End()
}

// attributes returns what the span says of the region.
func (r *Region) attributes() []attribute.KeyValue {
	t, shares := r.inside.Totals(), r.inside.Shares()
	var given []attribute.KeyValue
	if g := r.given.Load(); g != nil {
		given = *g
	}
	e := r.escaped(t.AllocatedBytes)
	room := len(given) + 9 + 2*len(shares)
	if e.Known {
		room += 3
	}
	list := append(make([]attribute.KeyValue, 0, room), given...)
	if p, ok := r.mem.(*alloctrace.Proxy); ok && p.Name() != "" {
		list = append(list, attribute.String("allocator.name", text.Name(p.Name())))
	}
	list = append(list,
		attribute.Int64("allocator.memory.allocated", t.AllocatedBytes),
		attribute.Int64("allocator.memory.freed", t.FreedBytes),
		attribute.Int64("allocator.memory.net", t.AllocatedBytes-t.FreedBytes),
		attribute.Int64("allocator.memory.peak", t.PeakBytes),
		attribute.Int64("allocator.allocations", t.Allocations),
		attribute.Int64("allocator.reallocations", t.Reallocations),
		attribute.Int64("allocator.frees", t.Frees),
		attribute.Int64("allocator.failures", t.Failures[0]+t.Failures[1]+t.Failures[2]),
	)
	for _, more := range []struct {
		name  string
		value int64
	}{
		{"allocator.memory.moved_in", t.MovedInBytes},
		{"allocator.memory.moved_out", t.MovedOutBytes},
		{"allocator.spans.suppressed", int64(r.failures.suppressed.Load())},
	} {
		if more.value != 0 {
			list = append(list, attribute.Int64(more.name, more.value))
		}
	}
	if e.Known {
		list = append(list,
			attribute.Int64("allocator.escaped.blocks", e.Blocks),
			attribute.Int64("allocator.escaped.bytes", e.Bytes),
			attribute.Int64("allocator.escaped.error", e.BytesError),
		)
	}
	if t.Waits != 0 { // where the clock is coarse the time can be 0
		list = append(list, attribute.Int64("allocator.waits", t.Waits), attribute.Int64("allocator.wait_time", int64(t.Waited)))
	}
	for _, s := range shares {
		name := "allocator.child." + text.Name(s.Name)
		list = append(list, attribute.Int64(name+".allocated", s.AllocatedBytes), attribute.Int64(name+".freed", s.FreedBytes))
	}
	return list
}
