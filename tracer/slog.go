package tracer

import (
	"context"
	"encoding/hex"
	"log/slog"

	"go.opentelemetry.io/otel/trace"
)

// NewSlogHandler returns a Handler that adds the attributes trace_id and span_id to each record
// whose context holds a span of OpenTelemetry, and hands it to inner. They are lower-case
// hexadecimal, of 32 and 16 digits, as in Jaeger and in hooks/zlog. So the lines of a
// program, and of hooks/sloghook, can be found from a trace, and a trace from a line:
//
//	logger := slog.New(tracer.NewSlogHandler(slog.NewJSONHandler(os.Stderr, nil)))
//
// After [slog.Logger.WithGroup] they are in the group, as all attributes of a record are. A record in
// a span costs an allocation of 48 bytes, and one more if it has more than five attributes with
// these. Others cost none. It may be used by several goroutines at once if inner may.
func NewSlogHandler(inner slog.Handler) slog.Handler {
	if inner == nil {
		panic("tracer: NewSlogHandler(nil): pass a handler, such as slog.NewJSONHandler(os.Stderr, nil)")
	}
	return &slogHandler{inner}
}

type slogHandler struct{ inner slog.Handler }

func (h *slogHandler) Enabled(ctx context.Context, l slog.Level) bool { return h.inner.Enabled(ctx, l) }

func (h *slogHandler) Handle(ctx context.Context, r slog.Record) error {
	if span := trace.SpanContextFromContext(ctx); span.IsValid() {
		traceID, spanID := span.TraceID(), span.SpanID()
		var digits [2 * (len(traceID) + len(spanID))]byte
		hex.Encode(digits[:], traceID[:])
		hex.Encode(digits[2*len(traceID):], spanID[:])
		ids := string(digits[:]) // not from a pool: a handler may keep the record
		r = r.Clone()            // the caller's copy must not change
		r.AddAttrs(slog.String("trace_id", ids[:2*len(traceID)]), slog.String("span_id", ids[2*len(traceID):]))
	}
	return h.inner.Handle(ctx, r)
}

func (h *slogHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &slogHandler{h.inner.WithAttrs(attrs)}
}

func (h *slogHandler) WithGroup(name string) slog.Handler {
	return &slogHandler{h.inner.WithGroup(name)}
}
