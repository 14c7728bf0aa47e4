package tracer_test

import (
	"context"
	"encoding/binary"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// recorder is a TracerProvider that keeps the spans made through it: the SDK is
// not among this module's requirements. The exporters module tests with the SDK
// and a real Jaeger.
type recorder struct {
	noop.TracerProvider
	mu    sync.Mutex
	spans []*span
}

type span struct {
	noop.Span
	recorder    *recorder
	context     trace.SpanContext
	parent      trace.SpanID
	scope, name string
	attributes  map[attribute.Key]attribute.Value
	status      codes.Code
	description string
	ends        int
	links       []trace.Link
	start, end  time.Time
	panics      []any
}

type recordingTracer struct {
	noop.Tracer
	recorder *recorder
	scope    string
}

func (r *recorder) Tracer(scope string, _ ...trace.TracerOption) trace.Tracer {
	return &recordingTracer{recorder: r, scope: scope}
}

func (t *recordingTracer) Start(ctx context.Context, name string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	r := t.recorder
	r.mu.Lock()
	defer r.mu.Unlock()
	var id trace.SpanID
	binary.BigEndian.PutUint64(id[:], uint64(len(r.spans)+1))
	s := &span{
		recorder:   r,
		context:    trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: id}),
		parent:     trace.SpanContextFromContext(ctx).SpanID(),
		scope:      t.scope,
		name:       name,
		attributes: make(map[attribute.Key]attribute.Value),
	}
	config := trace.NewSpanStartConfig(opts...)
	s.set(config.Attributes())
	s.links, s.start = config.Links(), config.Timestamp()
	if config.NewRoot() {
		s.parent = trace.SpanID{}
	}
	r.spans = append(r.spans, s)
	return trace.ContextWithSpan(ctx, s), s
}

func (s *span) set(attributes []attribute.KeyValue) {
	for _, a := range attributes {
		s.attributes[a.Key] = a.Value
	}
}

func (s *span) SpanContext() trace.SpanContext { return s.context }
func (s *span) IsRecording() bool              { return s.ends == 0 }

func (s *span) TracerProvider() trace.TracerProvider { return s.recorder }

func (s *span) SetAttributes(attributes ...attribute.KeyValue) {
	s.recorder.mu.Lock()
	defer s.recorder.mu.Unlock()
	s.set(attributes)
}

func (s *span) SetStatus(code codes.Code, description string) {
	s.status, s.description = code, description
}

// End records a panic where it is deferred itself, as the SDK's does.
func (s *span) End(opts ...trace.SpanEndOption) {
	s.recorder.mu.Lock()
	defer s.recorder.mu.Unlock()
	if v := recover(); v != nil {
		defer panic(v)
		s.panics = append(s.panics, v)
	}
	config := trace.NewSpanEndConfig(opts...)
	s.end = config.Timestamp()
	s.ends++
}
