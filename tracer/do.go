package tracer

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/text"
)

// Do calls f in a region of mem, as by [Start] and [Region.End], and returns f's error. It is for
// callers of one function, such as a query of database/sql. If f returns an error, the region's
// span has status Error with the error's text, and attribute error.type, by
// [blockalloc.ErrorType]. If f panics, the span records it, and the panic goes on with the same value.
//
// In f, memory of the region is mem in the context that f is given, or that of [FromContext].
func Do(ctx context.Context, name string, mem blockalloc.Allocator, f func(ctx context.Context) error, opts ...Option) error {
	outer := trace.SpanContextFromContext(ctx)
	ctx, r := Start(ctx, name, mem, opts...)
	defer r.End()
	err := f(ctx)
	// A region for which there was no budget has no span: the error is not that of the span around it.
	if span := trace.SpanFromContext(ctx); err != nil && span.IsRecording() && span.SpanContext().SpanID() != outer.SpanID() {
		span.SetStatus(codes.Error, text.Text(err.Error()))
		span.SetAttributes(attribute.String("error.type", blockalloc.ErrorType(err)))
	}
	return err
}
