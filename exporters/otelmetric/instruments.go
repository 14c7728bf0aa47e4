package otelmetric

import (
	"errors"

	"go.opentelemetry.io/otel/metric"
)

// instruments are those of one meter. The meter returns the same ones each time.
type instruments struct {
	used, allocated, peak, reserved, limit              metric.Int64Observable
	blocks, allocations, reallocations, frees, failures metric.Int64Observable

	all []metric.Observable
}

func newInstruments(meter metric.Meter) (*instruments, error) {
	i := &instruments{}
	var failed error
	add := func(o metric.Int64Observable, err error) metric.Int64Observable {
		i.all = append(i.all, o)
		failed = errors.Join(failed, err)
		return o
	}
	counter := func(name, unit, description string) metric.Int64Observable {
		return add(meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(description)))
	}
	upDownCounter := func(name, unit, description string) metric.Int64Observable {
		return add(meter.Int64ObservableUpDownCounter(name, metric.WithUnit(unit), metric.WithDescription(description)))
	}
	gauge := func(name, unit, description string) metric.Int64Observable {
		return add(meter.Int64ObservableGauge(name, metric.WithUnit(unit), metric.WithDescription(description)))
	}
	i.used = upDownCounter("allocator.memory.used", "By", "Bytes of live blocks.")
	i.allocated = counter("allocator.memory.allocated", "By", "Bytes allocated, in all.")
	i.peak = gauge("allocator.memory.peak", "By", "The most bytes that were live.")
	i.reserved = upDownCounter("allocator.memory.reserved", "By", "Address space reserved by the pool below.")
	i.limit = upDownCounter("allocator.memory.limit", "By", "The most bytes that may be live.")
	i.blocks = upDownCounter("allocator.block.count", "{block}", "Live blocks.")
	i.allocations = counter("allocator.allocations", "{allocation}", "Allocations that succeeded.")
	i.reallocations = counter("allocator.reallocations", "{reallocation}", "Reallocations that succeeded.")
	i.frees = counter("allocator.frees", "{free}", "Frees that succeeded.")
	i.failures = counter("allocator.failures", "{failure}", "Operations that failed.")
	return i, failed
}
