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
	"github.com/alloctrace/alloctrace/internal/metrics"
	"github.com/alloctrace/alloctrace/internal/sources"
)

// RegisterRSS exports an [rss.Report], what the resident memory of the process is made of,
// whenever metrics are collected, until [Registration.Close]. The report has the memory of each
// of the allocators; those of the same name are added up. It ignores options other than
// [WithMeterProvider].
//
// RegisterRSS returns an error, and has registered nothing, on systems other than Linux, and if
// the provider refuses an instrument. If the process may not read its memory, or has no file
// descriptor left, that is no error, because it can change. RegisterRSS panics if an allocator
// is nil. A collection costs an [rss.Read].
func RegisterRSS(allocators []counter.Source, opts ...Option) (*Registration, error) {
	sources.Require("otelmetric: RegisterRSS", allocators...)
	allocators = slices.Clone(allocators)
	if _, err := rss.Read(); errors.Is(err, errors.ErrUnsupported) {
		return nil, fmt.Errorf("otelmetric: RegisterRSS: %w", err)
	}
	meter := newConfig(config{}, opts).provider.Meter(ScopeName, metric.WithInstrumentationVersion(Version()))
	add := adder{meter: meter}
	parts, resident, readFailures := add.int64(metrics.RSS), add.int64(metrics.MemoryResident), add.int64(metrics.RSSReadFailures)
	r := &Registration{}
	err := add.err
	if err == nil {
		r.callback, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
			readable, failed := sources.Readable(allocators)
			r.unread.Add(failed)
			var report rss.Report
			if r.try(func() (err error) { report, err = rss.Read(readable...); return err }) {
				for _, p := range report.Parts() {
					o.ObserveInt64(parts, p.Bytes, metric.WithAttributes(attribute.String("allocator.rss.part", p.Name)))
				}
				for _, a := range report.Allocators {
					o.ObserveInt64(resident, a.Resident, metric.WithAttributes(attribute.String("allocator.name", a.Name)))
				}
			}
			o.ObserveInt64(readFailures, r.unread.Load())
			return nil
		}, add.all...)
	}
	if err != nil {
		return nil, fmt.Errorf("otelmetric: RegisterRSS: the MeterProvider refuses: %w", err)
	}
	return r, nil
}
