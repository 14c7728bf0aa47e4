package flight_test

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

// spans is a TracerProvider that keeps the spans made through it. The module exporters/otlp tests with
// the SDK and a real Jaeger.
type spans struct {
	noop.TracerProvider
	mu   sync.Mutex
	list []*span
	root chan bool // gets a value when a root ends; nil for none
}

type span struct {
	noop.Span
	all         *spans
	context     trace.SpanContext
	parent      trace.SpanID
	scope, name string
	from, to    time.Time
	attributes  map[attribute.Key]attribute.Value
	status      codes.Code
	description string
	links       []trace.Link
	ends        int
}

type keepingTracer struct {
	noop.Tracer
	all   *spans
	scope string
}

func (s *spans) Tracer(scope string, _ ...trace.TracerOption) trace.Tracer {
	return &keepingTracer{all: s, scope: scope}
}

func (t *keepingTracer) Start(ctx context.Context, name string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	t.all.mu.Lock()
	defer t.all.mu.Unlock()
	var id trace.SpanID
	binary.BigEndian.PutUint64(id[:], uint64(len(t.all.list)+1))
	config := trace.NewSpanStartConfig(opts...)
	s := &span{
		all:        t.all,
		context:    trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: id}),
		scope:      t.scope,
		name:       name,
		from:       config.Timestamp(),
		attributes: make(map[attribute.Key]attribute.Value),
		links:      config.Links(),
	}
	if !config.NewRoot() {
		s.parent = trace.SpanContextFromContext(ctx).SpanID()
	}
	s.set(config.Attributes())
	t.all.list = append(t.all.list, s)
	return trace.ContextWithSpan(ctx, s), s
}

func (s *span) set(attributes []attribute.KeyValue) {
	for _, a := range attributes {
		s.attributes[a.Key] = a.Value
	}
}

func (s *span) SpanContext() trace.SpanContext { return s.context }
func (s *span) IsRecording() bool              { return s.ends == 0 }

func (s *span) TracerProvider() trace.TracerProvider { return s.all }

func (s *span) SetAttributes(attributes ...attribute.KeyValue) {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	s.set(attributes)
}

func (s *span) SetStatus(code codes.Code, description string) {
	s.status, s.description = code, description
}

func (s *span) End(opts ...trace.SpanEndOption) {
	s.all.mu.Lock()
	defer s.all.mu.Unlock()
	config := trace.NewSpanEndConfig(opts...)
	s.to = config.Timestamp()
	s.ends++
	if s.name == "allocator flight record" && s.all.root != nil {
		s.all.root <- true
	}
}

// named returns the spans of that name.
func (s *spans) named(name string) (list []*span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.list {
		if one.name == name {
			list = append(list, one)
		}
	}
	return list
}
