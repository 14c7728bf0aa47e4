package tracehttp_test

import (
	"context"
	"encoding/binary"
	"sync"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// recorder is a TracerProvider and a MeterProvider that keeps what is made through it: the SDK is not among this module's
// requirements. The tests of exporters/tracegrpc have the SDK, otelhttp and a real Prometheus.
type recorder struct {
	noop.TracerProvider
	mu      sync.Mutex
	spans   []*span
	records []record
}

type span struct {
	noop.Span
	recorder   *recorder
	context    trace.SpanContext
	parent     trace.SpanID
	name       string
	attributes map[attribute.Key]attribute.Value
	ends       int
	panics     []any
}

// A record is one of a histogram.
type record struct {
	histogram  string
	bytes      int64
	attributes string
	span       trace.SpanID // in the context
}

type recordingTracer struct {
	noop.Tracer
	*recorder
}

func (r *recorder) Tracer(string, ...trace.TracerOption) trace.Tracer {
	return recordingTracer{recorder: r}
}

func (t recordingTracer) Start(ctx context.Context, name string, opts ...trace.SpanStartOption) (context.Context, trace.Span) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var id trace.SpanID
	binary.BigEndian.PutUint64(id[:], uint64(len(t.spans)+1))
	s := &span{
		recorder:   t.recorder,
		context:    trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: id}),
		parent:     trace.SpanContextFromContext(ctx).SpanID(),
		name:       name,
		attributes: make(map[attribute.Key]attribute.Value),
	}
	config := trace.NewSpanStartConfig(opts...)
	for _, a := range config.Attributes() {
		s.attributes[a.Key] = a.Value
	}
	t.spans = append(t.spans, s)
	return trace.ContextWithSpan(ctx, s), s
}

func (s *span) SpanContext() trace.SpanContext       { return s.context }
func (s *span) TracerProvider() trace.TracerProvider { return s.recorder }

func (s *span) IsRecording() bool {
	s.recorder.mu.Lock()
	defer s.recorder.mu.Unlock()
	return s.ends == 0
}

func (s *span) SetName(name string) {
	s.recorder.mu.Lock()
	defer s.recorder.mu.Unlock()
	s.name = name
}

func (s *span) SetAttributes(list ...attribute.KeyValue) {
	s.recorder.mu.Lock()
	defer s.recorder.mu.Unlock()
	for _, a := range list {
		s.attributes[a.Key] = a.Value
	}
}

// End records a panic where it is deferred itself, as the SDK's does.
func (s *span) End(...trace.SpanEndOption) {
	if v := recover(); v != nil {
		defer panic(v)
		s.panics = append(s.panics, v)
	}
	s.recorder.mu.Lock()
	defer s.recorder.mu.Unlock()
	s.ends++
}

// meters is the recorder as a MeterProvider.
func (r *recorder) meters() metric.MeterProvider { return meters{recorder: r} }

type meters struct {
	metricnoop.MeterProvider
	*recorder
}

type meter struct {
	metricnoop.Meter
	*recorder
}

type histogram struct {
	metricnoop.Int64Histogram
	*recorder
	name string
}

func (m meters) Meter(string, ...metric.MeterOption) metric.Meter { return meter{recorder: m.recorder} }

func (m meter) Int64Histogram(name string, _ ...metric.Int64HistogramOption) (metric.Int64Histogram, error) {
	return histogram{recorder: m.recorder, name: name}, nil
}

func (h histogram) Record(ctx context.Context, n int64, opts ...metric.RecordOption) {
	h.mu.Lock()
	defer h.mu.Unlock()
	set := metric.NewRecordConfig(opts).Attributes()
	h.records = append(h.records, record{h.name, n, set.Encoded(attribute.DefaultEncoder()), trace.SpanContextFromContext(ctx).SpanID()})
}
