package test_test

import (
	"context"
	"slices"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
)

// An sdk is OpenTelemetry's, which keeps what it is given.
type sdk struct {
	spans  *tracetest.SpanRecorder
	tracer *sdktrace.TracerProvider
	reader *sdkmetric.ManualReader
	meter  *sdkmetric.MeterProvider
}

func newSDK(t *testing.T) *sdk {
	s := &sdk{spans: tracetest.NewSpanRecorder(), reader: sdkmetric.NewManualReader()}
	s.tracer = sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(s.spans))
	s.meter = sdkmetric.NewMeterProvider(sdkmetric.WithReader(s.reader))
	t.Cleanup(func() {
		if err := s.tracer.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
		if err := s.meter.Shutdown(context.Background()); err != nil {
			t.Error(err)
		}
	})
	return s
}

// attributeOf returns the value of an attribute of a span, nil if it has none.
func attributeOf(s sdktrace.ReadOnlySpan, key attribute.Key) any {
	i := slices.IndexFunc(s.Attributes(), func(a attribute.KeyValue) bool { return a.Key == key })
	if i < 0 {
		return nil
	}
	return s.Attributes()[i].Value.AsInterface()
}

// A total is what a histogram has of one set of attributes.
type total struct {
	count uint64
	sum   int64
}

// totals returns those of one histogram by attributes.
func (s *sdk) totals(t *testing.T, histogram string) map[string]total {
	t.Helper()
	var rm metricdata.ResourceMetrics
	if err := s.reader.Collect(t.Context(), &rm); err != nil {
		t.Fatal(err)
	}
	all := make(map[string]total)
	for _, scope := range rm.ScopeMetrics {
		for _, m := range scope.Metrics {
			if h, ok := m.Data.(metricdata.Histogram[int64]); ok && m.Name == histogram {
				for _, p := range h.DataPoints {
					all[p.Attributes.Encoded(attribute.DefaultEncoder())] = total{p.Count, p.Sum}
				}
			}
		}
	}
	return all
}
