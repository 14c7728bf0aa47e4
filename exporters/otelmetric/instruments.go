package otelmetric

import (
	"errors"

	"go.opentelemetry.io/otel/metric"

	"github.com/alloctrace/alloctrace/internal/metrics"
)

// instruments are those of one meter. The meter returns the same ones each time.
type instruments struct {
	used, allocated, peak, reserved, pinned, limit                    metric.Int64Observable
	blocks, allocations, reallocations, frees, failures, readFailures metric.Int64Observable

	all []metric.Observable
}

func newInstruments(meter metric.Meter) (*instruments, error) {
	i := &instruments{}
	add := adder{meter: meter}
	i.used = add.int64(metrics.MemoryUsed)
	i.allocated = add.int64(metrics.MemoryAllocated)
	i.peak = add.int64(metrics.MemoryPeak)
	i.reserved = add.int64(metrics.MemoryReserved)
	i.pinned = add.int64(metrics.MemoryPinned)
	i.limit = add.int64(metrics.MemoryLimit)
	i.blocks = add.int64(metrics.BlockCount)
	i.allocations = add.int64(metrics.Allocations)
	i.reallocations = add.int64(metrics.Reallocations)
	i.frees = add.int64(metrics.Frees)
	i.failures = add.int64(metrics.Failures)
	i.readFailures = add.int64(metrics.ReadFailures)
	i.all = add.all
	return i, add.err
}

// An adder adds instruments to a meter.
type adder struct {
	meter metric.Meter
	all   []metric.Observable
	err   error // of all that were refused
}

func (a *adder) int64(m metrics.Metric) metric.Int64Observable {
	unit, description := metric.WithUnit(m.Unit), metric.WithDescription(m.Help)
	var o metric.Int64Observable
	var err error
	switch m.Kind {
	case metrics.Counter:
		o, err = a.meter.Int64ObservableCounter(m.Name, unit, description)
	case metrics.UpDownCounter:
		o, err = a.meter.Int64ObservableUpDownCounter(m.Name, unit, description)
	default:
		o, err = a.meter.Int64ObservableGauge(m.Name, unit, description)
	}
	a.all = append(a.all, o)
	a.err = errors.Join(a.err, err)
	return o
}
