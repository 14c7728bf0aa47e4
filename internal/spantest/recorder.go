// Package spantest keeps spans for the tests of the root module, which does not require the SDK. Those of the modules
// below exporters have the SDK and a real Jaeger.
package spantest

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

// A Recorder is a TracerProvider that keeps the spans made through it. The zero Recorder is ready.
type Recorder struct {
	noop.TracerProvider
	Mu    sync.Mutex // of Spans and of what is in them
	Spans []*Span
}

// A Span is all that was set of it.
type Span struct {
	noop.Span
	recorder    *Recorder
	Context     trace.SpanContext
	Parent      trace.SpanID
	Scope, Name string
	Attributes  map[attribute.Key]attribute.Value
	Status      codes.Code
	Description string
	Links       []trace.Link
	From, To    time.Time
	Ends        int
	Panics      []any
}

type tracer struct {
	noop.Tracer
	recorder *Recorder
	scope    string
}

// Named returns the spans of that name.
func (r *Recorder) Named(name string) (list []*Span) {
	r.Mu.Lock()
	defer r.Mu.Unlock()
	for _, s := range r.Spans {
		if s.Name == name {
			list = append(list, s)
		}
	}
	return list
}

func (r *Recorder) Tracer(scope string, _ ...trace.TracerOption) trace.Tracer {
	return &tracer{recorder: r, scope: scope}
}

func (t *tracer) Start(ctx context.Context, name string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	r := t.recorder
	r.Mu.Lock()
	defer r.Mu.Unlock()
	var id trace.SpanID
	binary.BigEndian.PutUint64(id[:], uint64(len(r.Spans)+1))
	config := trace.NewSpanStartConfig(opts...)
	s := &Span{
		recorder:   r,
		Context:    trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: id}),
		Scope:      t.scope,
		Name:       name,
		Attributes: make(map[attribute.Key]attribute.Value),
		Links:      config.Links(),
		From:       config.Timestamp(),
	}
	if !config.NewRoot() {
		s.Parent = trace.SpanContextFromContext(ctx).SpanID()
	}
	s.set(config.Attributes())
	r.Spans = append(r.Spans, s)
	return trace.ContextWithSpan(ctx, s), s
}

func (s *Span) set(attributes []attribute.KeyValue) {
	for _, a := range attributes {
		s.Attributes[a.Key] = a.Value
	}
}

func (s *Span) SpanContext() trace.SpanContext       { return s.Context }
func (s *Span) TracerProvider() trace.TracerProvider { return s.recorder }

func (s *Span) IsRecording() bool {
	s.recorder.Mu.Lock()
	defer s.recorder.Mu.Unlock()
	return s.Ends == 0
}

func (s *Span) SetName(name string) {
	s.recorder.Mu.Lock()
	defer s.recorder.Mu.Unlock()
	s.Name = name
}

func (s *Span) SetAttributes(attributes ...attribute.KeyValue) {
	s.recorder.Mu.Lock()
	defer s.recorder.Mu.Unlock()
	s.set(attributes)
}

func (s *Span) SetStatus(code codes.Code, description string) {
	s.recorder.Mu.Lock()
	defer s.recorder.Mu.Unlock()
	s.Status, s.Description = code, description
}

// End records a panic where it is deferred itself, as the SDK's does.
func (s *Span) End(opts ...trace.SpanEndOption) {
	s.recorder.Mu.Lock()
	defer s.recorder.Mu.Unlock()
	if v := recover(); v != nil {
		defer panic(v)
		s.Panics = append(s.Panics, v)
	}
	config := trace.NewSpanEndConfig(opts...)
	s.To = config.Timestamp()
	s.Ends++
}
