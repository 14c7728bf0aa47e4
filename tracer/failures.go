package tracer

import (
	"context"
	"math"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/text"
)

// Failures returns a Hook that makes a span of each operation that fails, outside
// of regions too: named "allocate", "reallocate" or "free", of status Error with
// the error's text, a child of the span in the Proxy's context, with attributes
//
//	allocator.operation  string  allocate, reallocate or free, as in the metrics of the exporters
//	allocator.size       By      what was asked for, or the block's size; 2^63-1 if it is more
//	allocator.align      By      likewise
//	error.type           string  out_of_memory, limit, double_free and so on, by blockalloc.ErrorType
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

func (f *failures) Observe(ctx context.Context, e alloctrace.Event, err error) {
	if !e.Kind.Failed() || teller(ctx) != f.region || f.left.Load() <= 0 || f.left.Add(-1) < 0 {
		return
	}
	_, span := f.config.tracer(ctx).Start(ctx, e.Kind.Op(), trace.WithAttributes(f.config.attributes...), trace.WithAttributes(
		attribute.String("allocator.operation", e.Kind.Op()),
		attribute.Int64("allocator.size", bytes(e.Size)),
		attribute.Int64("allocator.align", bytes(e.Align)),
		attribute.String("error.type", blockalloc.ErrorType(err)),
	))
	span.SetStatus(codes.Error, text.Text(err.Error()))
	span.End()
}

// bytes is an attribute's value of a size: the largest there is where size is larger, as
// what a failure asked for can be.
func bytes(size uintptr) int64 { return int64(min(uint64(size), math.MaxInt64)) }
