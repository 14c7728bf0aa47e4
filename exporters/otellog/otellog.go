// Package otellog emits what package tracer logs, which is failures, as log records of
// OpenTelemetry:
//
//	ctx, region := tracer.Start(ctx, "load-index", mem, tracer.WithLogs(otellog.New(provider)))
//
// A record has an event name, which is allocator.failure, severity Error, the error's text as its
// body, and the attributes of the failure's span. It is emitted with the context of the operation,
// so that its trace and span are those of the region.
//
// It is a module of its own because it requires OpenTelemetry 1.47, the first in which otel/log is
// stable. A program that has an older one keeps it unless it imports this package.
package otellog

import (
	"context"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/log"

	"github.com/alloctrace/alloctrace/tracer"
)

// New returns a function for [tracer.WithLogs] that emits records through a logger of p named
// [tracer.ScopeName]. If p is nil it is the global provider, otel.GetLoggerProvider. Emit is called
// in the goroutine that allocates; a logger that is not Enabled costs that call. The function may be
// called by several goroutines at once.
func New(p log.LoggerProvider) func(context.Context, tracer.LogRecord) {
	if p == nil {
		p = otel.GetLoggerProvider()
	}
	logger := p.Logger(tracer.ScopeName)
	return func(ctx context.Context, l tracer.LogRecord) {
		severity := log.Severity(l.Level) + log.SeverityInfo // slog.LevelInfo is 0, and both have steps of 4
		if !logger.Enabled(ctx, log.EnabledParameters{Severity: severity, EventName: l.Event}) {
			return
		}
		var r log.Record
		r.SetTimestamp(time.Now())
		r.SetEventName(l.Event)
		r.SetSeverity(severity)
		r.SetSeverityText(l.Level.String())
		r.SetBody(attribute.StringValue(l.Body))
		r.AddAttributes(l.Attributes...)
		logger.Emit(ctx, r)
	}
}
