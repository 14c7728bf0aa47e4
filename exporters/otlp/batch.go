package otlp

import (
	"context"
	"reflect"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	resourcepb "go.opentelemetry.io/proto/otlp/resource/v1"
	tracepb "go.opentelemetry.io/proto/otlp/trace/v1"

	"github.com/alloctrace/alloctrace/internal/text"
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

// A courier stands between the OpenTelemetry exporter, which makes requests of
// batches, and the client that sends them. It makes requests fit to be sent,
// and records what became of their spans. It hands no error of a delivery back,
// for the batch processor would pass it on to OpenTelemetry's global handler,
// which prints it.
type courier struct {
	otlptrace.Client
	ledger   *ledger
	abort    context.Context // ends when Shutdown gives up
	resource *resourcepb.Resource
	tls      bool
}

var _ otlptrace.Client = (*courier)(nil)

func (c *courier) UploadTraces(ctx context.Context, batch []*tracepb.ResourceSpans) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := context.AfterFunc(c.abort, func() { cancel(errGivenUp) })
	defer stop()

	for _, rs := range batch {
		rs.Resource = c.resource
	}
	makeValid(batch)
	for _, request := range split(batch, maxRequest) {
		c.upload(ctx, request)
	}
	return nil
}

func (c *courier) upload(ctx context.Context, request []*tracepb.ResourceSpans) {
	n := countSpans(request)
	if c.abort.Err() != nil {
		c.ledger.settle(0, n, errGivenUp)
		return
	}
	err := c.Client.UploadTraces(ctx, request)
	if err == nil {
		c.ledger.settle(n, 0, nil)
		return
	}
	if c.tls {
		err = explainTLS(err)
	}
	failed := n
	if rejected, partial := rejectedSpans(err); partial {
		failed = min(rejected, n)
	}
	if failed == 0 {
		err = nil // a collector's remark on a request that it took whole
	}
	c.ledger.settle(n-failed, failed, bounded(err))
}

// A boundedError is an error whose text a collector has made too long or more
// than a line.
type boundedError struct {
	error
	text string
}

func (e *boundedError) Error() string { return e.text }
func (e *boundedError) Unwrap() error { return e.error }

func bounded(err error) error {
	if err == nil {
		return nil
	}
	whole := err.Error()
	if line := text.Line(whole, 2*text.MaxName); line != whole {
		return &boundedError{err, line}
	}
	return err
}

func countSpans(request []*tracepb.ResourceSpans) (n int64) {
	for _, rs := range request {
		for _, ss := range rs.ScopeSpans {
			n += int64(len(ss.Spans))
		}
	}
	return n
}

// rejectedSpans returns how many spans of a request a collector turned down if
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
