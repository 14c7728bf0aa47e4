package otlp

import (
	"context"
	"reflect"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"
)

// A gate stands before the SDK's batch processor, which drops spans without
// a word when its queue is full. The gate lets in no more than fit, so that
// the processor never has to, and counts the rest.
type gate struct {
	ledger *ledger
	next   sdktrace.SpanProcessor
}

var _ sdktrace.SpanProcessor = (*gate)(nil)

func (g *gate) OnStart(context.Context, sdktrace.ReadWriteSpan) {}

func (g *gate) OnEnd(s sdktrace.ReadOnlySpan) {
	if !s.SpanContext().IsSampled() {
		return // recorded for local use only; the batch processor skips it too
	}
	g.ledger.admit(func() { g.next.OnEnd(s) })
}

func (g *gate) ForceFlush(ctx context.Context) error { return g.next.ForceFlush(ctx) }

func (g *gate) Shutdown(ctx context.Context) error { return g.next.Shutdown(ctx) }

// A counting exporter stands behind the batch processor and records what
// became of each batch. It hands no export error back, for the processor
// would pass it on to OpenTelemetry's global handler, which prints it.
type countingExporter struct {
	ledger *ledger
	inner  sdktrace.SpanExporter
	abort  context.Context // ends when Shutdown gives up
}

var _ sdktrace.SpanExporter = (*countingExporter)(nil)

func (e *countingExporter) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	n := int64(len(spans))
	if e.abort.Err() != nil {
		e.ledger.settle(0, n, errGivenUp)
		return nil
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(e.abort, func() { cancel(errGivenUp) })
	defer stop()

	err := e.inner.ExportSpans(ctx, spans)
	if err == nil {
		e.ledger.settle(n, 0, nil)
		return nil
	}
	failed := n
	if rejected, partial := rejectedSpans(err); partial {
		failed = min(rejected, n)
	}
	if failed == 0 {
		err = nil // a collector's remark on a batch that it took whole
	}
	e.ledger.settle(n-failed, failed, err)
	return nil
}

func (e *countingExporter) Shutdown(ctx context.Context) error { return e.inner.Shutdown(ctx) }

// rejectedSpans returns how many spans of a batch a collector turned down if
// err says that it answered with a partial success. OpenTelemetry keeps the
// type of that error internal, so it is known by its name and read by its
// field; a partial success beside another error is no success at all.
func rejectedSpans(err error) (n int64, partial bool) {
	switch e := err.(type) {
	case interface{ Unwrap() error }:
		return rejectedSpans(e.Unwrap())
	case interface{ Unwrap() []error }:
		if errs := e.Unwrap(); len(errs) == 1 {
			return rejectedSpans(errs[0])
		}
		return 0, false
	}
	v := reflect.ValueOf(err)
	if v.Kind() != reflect.Struct || v.Type().Name() != "PartialSuccess" {
		return 0, false
	}
	f := v.FieldByName("RejectedItems")
	if !f.IsValid() || !f.CanInt() || f.Int() < 0 {
		return 0, false
	}
	return f.Int(), true
}
