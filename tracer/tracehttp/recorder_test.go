package tracehttp_test

import (
	"context"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	metricnoop "go.opentelemetry.io/otel/metric/noop"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace/internal/spantest"
)

// recorder keeps spans, and is a MeterProvider that keeps records. The tests of exporters/tracegrpc have the SDK, otelhttp and a
// real Prometheus.
type recorder struct {
	spantest.Recorder
	records []record
}

// A record is one of a histogram.
type record struct {
	histogram  string
	bytes      int64
	attributes string
	span       trace.SpanID // in the context
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
	h.Mu.Lock()
	defer h.Mu.Unlock()
	set := metric.NewRecordConfig(opts).Attributes()
	h.records = append(h.records, record{h.name, n, set.Encoded(attribute.DefaultEncoder()), trace.SpanContextFromContext(ctx).SpanID()})
}
