package tracer

import (
	"context"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/log"

	"github.com/alloctrace/alloctrace/internal/text"
)

// WithLoggerProvider has each failure emitted as a log record of OpenTelemetry too. Its context is
// that of the operation, so that its trace and span are those of the region. The record has
// severity Error, the event name allocator.failure, the error's text as its body and the
// attributes of the failure's span. If p is nil it is the global provider, otel.GetLoggerProvider.
//
// All failures have a record, those that have no span by [WithMaxFailures] included: p bounds
// what it keeps of them. Emit is called in the goroutine that allocates, and so must not
// allocate through the same Proxy. Without this option nothing is emitted.
func WithLoggerProvider(p log.LoggerProvider) Option {
	return optionFunc(func(c *config) {
		if p == nil {
			p = otel.GetLoggerProvider()
		}
		c.logs = p
	})
}

// emitLog emits a log record that has the trace and the span in ctx, unless p is nil or its
// logger is off. The body may be any string.
func emitLog(ctx context.Context, p log.LoggerProvider, eventName string, severity log.Severity, body string, attributes ...attribute.KeyValue) {
	if p == nil {
		return
	}
	logger := p.Logger(ScopeName)
	if !logger.Enabled(ctx, log.EnabledParameters{Severity: severity, EventName: eventName}) {
		return
	}
	var r log.Record
	r.SetTimestamp(time.Now())
	r.SetEventName(eventName)
	r.SetSeverity(severity)
	r.SetSeverityText(severity.String())
	r.SetBody(attribute.StringValue(text.Text(body)))
	r.AddAttributes(attributes...)
	logger.Emit(ctx, r)
}
