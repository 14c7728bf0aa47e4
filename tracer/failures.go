package tracer

import (
	"context"
	"log/slog"
	"math"
	rtrace "runtime/trace"
	"slices"
	"sync/atomic"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/region"
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
// A [Region] does this by itself: a failure has one span, of the innermost region
// that it happened in, and of this Hook if there is none. All failures have one
// unless [WithMaxFailures] says otherwise. [WithLogs] makes log records of them, too.
// Other events cost a comparison.
func Failures(opts ...Option) alloctrace.Hook {
	f := new(failures)
	f.init(newConfig(math.MaxInt, opts))
	return f
}

// failures makes spans of failures.
type failures struct {
	config     *config
	spans      atomic.Int32 // how many have a span, and more
	suppressed atomic.Int32 // of a region: spans directly inside, of failures or not
}

func (f *failures) init(c *config) {
	f.config = c
}

func (f *failures) Observe(ctx context.Context, e alloctrace.Event, err error) {
	if e.Kind.Failed() && region.From(ctx) == nil {
		f.failed(ctx, e.Kind.Op(), e.Size, e.Align, err)
	}
}

// failed makes a span of a failure, a log record, and a message in a trace of the Go runtime.
func (f *failures) failed(ctx context.Context, op string, size, align uintptr, err error) {
	if rtrace.IsEnabled() {
		logFailure(ctx, op, size, err)
	}
	spanned := f.hasSpan(ctx)
	if !spanned && f.config.logs == nil {
		return
	}
	attributes := append(slices.Clip(f.config.attributes),
		attribute.String("allocator.operation", op),
		attribute.Int64("allocator.size", bytes(size)),
		attribute.Int64("allocator.align", bytes(align)),
		attribute.String("error.type", blockalloc.ErrorType(err)),
	)
	emitLog(ctx, f.config.logs, "allocator.failure", slog.LevelError, err.Error(), attributes...)
	if spanned {
		_, span := f.config.tracer(ctx).Start(ctx, op, trace.WithAttributes(attributes...))
		span.SetStatus(codes.Error, text.Text(err.Error()))
		span.End()
	}
}

// hasSpan reports whether the next failure, which is in ctx, has a span.
func (f *failures) hasSpan(ctx context.Context) bool {
	if most := f.config.maxFailures; most < math.MaxInt32 && (f.spans.Load() >= int32(most) || f.spans.Add(1) > int32(most)) {
		return false
	}
	if f.config.budget.takeReserved() {
		return true
	}
	suppressed(ctx)
	return false
}

// bytes is an attribute's value of a size: the largest there is where size is larger, as
// what a failure asked for can be.
func bytes(size uintptr) int64 { return int64(min(uint64(size), math.MaxInt64)) }
