package tracer

import (
	"context"
	"errors"
	"math"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// Failures returns a Hook that makes a span of each operation that fails, outside
// of regions too: named "allocate", "reallocate" or "free", of status Error with
// the error's text, a child of the span in the Proxy's context, with attributes
//
//	allocator.size    By      what was asked for, or the block's size
//	allocator.align   By
//	error.type        string  out_of_memory, bad_layout, unsupported_align, not_owned, double_free, limit, scoped, closed or _OTHER
//
// A [Region] does this by itself: a failure is told once, by the innermost region
// that it happened in, and by this Hook if there is none. All failures are told
// unless [WithMaxFailures] says otherwise. Other events cost a comparison.
func Failures(opts ...Option) alloctrace.Hook {
	return newFailures(nil, newConfig(math.MaxInt, opts))
}

// tellerKey is where the context of a region's view holds the region, and no other
// context does: an operation that passes several hooks is told by the first region
// that it entered.
type tellerKey struct{}

func teller(ctx context.Context) *Region {
	r, _ := ctx.Value(tellerKey{}).(*Region)
	return r
}

type failures struct {
	region *Region // nil for the Hook of no region
	config config
	left   atomic.Int64 // how many will still be told
}

func newFailures(r *Region, c config) *failures {
	f := &failures{region: r, config: c}
	f.left.Store(c.maxFailures)
	return f
}

func (f *failures) Observe(ctx context.Context, e alloctrace.Event) {
	if !e.Kind.Failed() || teller(ctx) != f.region || f.left.Load() <= 0 || f.left.Add(-1) < 0 {
		return
	}
	_, span := f.config.tracer(ctx).Start(ctx, e.Kind.Op(), trace.WithAttributes(f.config.attributes...), trace.WithAttributes(
		attribute.Int64("allocator.size", int64(e.Size)),
		attribute.Int64("allocator.align", int64(e.Align)),
		attribute.String("error.type", errorType(e.Err)),
	))
	span.SetStatus(codes.Error, e.Err.Error())
	span.End()
}

// errorType gives each of blockalloc's errors a name of low cardinality; _OTHER is
// OpenTelemetry's word for the rest.
func errorType(err error) string {
	for _, t := range errorTypes {
		if errors.Is(err, t.err) {
			return t.name
		}
	}
	return "_OTHER"
}

var errorTypes = []struct {
	err  error
	name string
}{
	{blockalloc.ErrOutOfMemory, "out_of_memory"},
	{blockalloc.ErrBadLayout, "bad_layout"},
	{blockalloc.ErrUnsupportedAlign, "unsupported_align"},
	{blockalloc.ErrNotOwned, "not_owned"},
	{blockalloc.ErrDoubleFree, "double_free"},
	{blockalloc.ErrLimit, "limit"},
	{blockalloc.ErrScoped, "scoped"},
	{blockalloc.ErrClosed, "closed"},
}
