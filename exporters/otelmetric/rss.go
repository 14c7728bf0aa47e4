package otelmetric

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/rss"
)

// StartRSS tells OpenTelemetry what the resident memory of the process is made of, by
// package rss, whenever metrics are collected, until [Registration.Stop]. Sources are
// those whose memory is told from the rest; what has the same name is added up. Of the
// options it heeds [WithMeterProvider].
//
// It fails, and has then registered nothing, where [rss.Read] does, anywhere but on
// Linux, or if the provider refuses an instrument. A collection costs a Read.
func StartRSS(sources []counter.Source, opts ...Option) (*Registration, error) {
	sources = slices.Clone(sources)
	if _, err := rss.Read(sources...); err != nil {
		return nil, fmt.Errorf("otelmetric.StartRSS: %w", err)
	}
	meter := newConfig(config{}, opts).provider.Meter(ScopeName, metric.WithInstrumentationVersion(Version()))
	parts, err := meter.Int64ObservableUpDownCounter("allocator.rss", metric.WithUnit("By"),
		metric.WithDescription("Resident memory of the process, by what it is of."))
	resident, err2 := meter.Int64ObservableUpDownCounter("allocator.memory.resident", metric.WithUnit("By"),
		metric.WithDescription("Bytes of an allocator that are in memory, live or not."))
	r := &Registration{}
	if err = errors.Join(err, err2); err == nil {
		r.callback, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
			report, err := rss.Read(sources...)
			if err != nil {
				return err
			}
			for _, p := range report.Parts() {
				o.ObserveInt64(parts, p.Bytes, metric.WithAttributes(attribute.String("allocator.rss.part", p.Name)))
			}
			for _, a := range report.Allocators {
				o.ObserveInt64(resident, a.Resident, metric.WithAttributes(attribute.String("allocator.name", a.Name)))
			}
			return nil
		}, parts, resident)
	}
	if err != nil {
		return nil, fmt.Errorf("otelmetric.StartRSS: the MeterProvider refuses: %w", err)
	}
	return r, nil
}
