package tracer

import (
	"context"
	"log/slog"

	"go.opentelemetry.io/otel/attribute"

	"github.com/alloctrace/alloctrace/internal/text"
)

// A LogRecord says what has happened, for a log. The context that comes with it says where: it
// holds the span.
type LogRecord struct {
	Event      string               // what it is, such as "allocator.failure"
	Level      slog.Level           // slog.LevelError for a failure
	Body       string               // a text, such as that of the error: valid UTF-8 of at most 16 KiB
	Attributes []attribute.KeyValue // those that the span of the same event has; they must not be changed
}

// WithLogs has emit called for each failure, with the context of the operation, whose trace and span
// are those of the region. Package exporters/otellog makes an emit that hands on to a
// LoggerProvider of OpenTelemetry:
//
//	tracer.Start(ctx, "load-index", mem, tracer.WithLogs(otellog.New(provider)))
//
// The record is an allocator.failure, and has the error's text and the attributes of the failure's span,
// see [Failures]. All failures have one, those that have no span by [WithMaxFailures] included. That of
// a report by [Reports] is an allocator.misuse.
// emit is called in the goroutine that allocates, by several at once. It must not allocate through the
// same Proxy. Without this option nothing is made.
func WithLogs(emit func(ctx context.Context, r LogRecord)) Option {
	if emit == nil {
		panic("tracer: WithLogs(nil): pass a function, such as otellog.New(provider)")
	}
	return optionFunc(func(c *config) { c.logs = emit })
}

// emitLog has emit called with a record, unless emit is nil. The body may be any string.
func emitLog(ctx context.Context, emit func(context.Context, LogRecord), event string, level slog.Level, body string, attributes ...attribute.KeyValue) {
	if emit != nil {
		emit(ctx, LogRecord{event, level, text.Text(body), attributes})
	}
}
