// Package requests has the metrics of what requests allocate, which the middlewares record: tracer/tracehttp and
// exporters/tracegrpc.
package requests

import (
	"context"
	"slices"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/metric/noop"

	"github.com/alloctrace/alloctrace/tracer"
)

// bounds are the upper bounds of the buckets, in bytes: the powers of 4 from 1 KiB to 1 GiB.
var bounds = []float64{1 << 10, 1 << 12, 1 << 14, 1 << 16, 1 << 18, 1 << 20, 1 << 22, 1 << 24, 1 << 26, 1 << 28, 1 << 30}

// Histograms are of bytes a request. They may be used by several goroutines at once.
type Histograms struct{ allocated, peak, escaped metric.Int64Histogram }

// NewHistograms makes them with a meter of p, the global provider if p is nil. An instrument that the provider refuses is
// reported to otel.Handle and records nothing.
func NewHistograms(scope string, p metric.MeterProvider) *Histograms {
	if p == nil {
		p = otel.GetMeterProvider()
	}
	meter := p.Meter(scope)
	histogram := func(name, description string) metric.Int64Histogram {
		h, err := meter.Int64Histogram(name, metric.WithUnit("By"), metric.WithDescription(description), metric.WithExplicitBucketBoundaries(bounds...))
		if err != nil {
			otel.Handle(err)
			return noop.Int64Histogram{}
		}
		return h
	}
	return &Histograms{
		allocated: histogram("allocator.request.allocated", "Bytes allocated in a request."),
		peak:      histogram("allocator.request.peak", "The most bytes that a request had allocated and not freed."),
		escaped:   histogram("allocator.request.escaped", "Bytes allocated in a request that were live at its end."),
	}
}

// Labels are the attributes of requests of one kind.
type Labels struct {
	Attributes []attribute.KeyValue
	options    []metric.RecordOption
}

// NewLabels returns Labels, which may be used for many requests.
func NewLabels(attributes ...attribute.KeyValue) *Labels {
	sorted := attribute.NewSet(slices.Clone(attributes)...)
	return &Labels{attributes, []metric.RecordOption{metric.WithAttributeSet(sorted)}}
}

// Record records a request that ends. The span in ctx becomes the exemplar, if the SDK takes it.
func (h *Histograms) Record(ctx context.Context, s tracer.Summary, of *Labels) {
	h.allocated.Record(ctx, s.AllocatedBytes, of.options...)
	h.peak.Record(ctx, s.PeakBytes, of.options...)
	if s.Escaped.Known {
		h.escaped.Record(ctx, s.Escaped.Bytes, of.options...)
	}
}
