package otelmetric

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/sources"
	"github.com/alloctrace/alloctrace/internal/text"
)

// ScopeName is the instrumentation scope of this package's metrics.
const ScopeName = module + "/otelmetric"

const module = "github.com/alloctrace/alloctrace/exporters"

// Version returns the version of this package's module in the running program, which the
// instrumentation scope has, or "" if it is not known.
func Version() string { return version() }

var version = sync.OnceValue(func() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range append(info.Deps, &info.Main) {
			if m.Path == module {
				return m.Version
			}
		}
	}
	return ""
})

// A Registration exports the numbers of one source until it is closed.
type Registration struct {
	source          counter.Source
	limit, reserved func() int64 // nil if there is none
	pinned          func() int64 // likewise
	instruments     *instruments
	attributes      attribute.Set
	common          []metric.ObserveOption    // the attributes
	failed          [3][]metric.ObserveOption // and allocator.operation: allocate, reallocate, free
	start           time.Time
	callback        metric.Registration
	producer        *Producer    // nil if there is none
	unread          atomic.Int64 // how often something could not be read and was left out
}

// Register exports the counts of mem, a Proxy or another source, whenever metrics are collected,
// until [Registration.Close]. It may be called for any number of sources. Sources of the same
// name and backend are added up, but the peak is then that of one of them.
//
// Register returns an error, and has registered nothing, if mem has no name or the provider
// refuses an instrument. It panics if mem is nil. A collection costs a snapshot of mem, two with
// a Producer.
func Register(mem counter.Source, opts ...Option) (*Registration, error) {
	if mem == nil {
		panic("otelmetric: Register(nil): pass a Proxy or another counter.Source")
	}
	below := sources.LookBelow(mem)
	r := &Registration{source: mem, limit: below.Limit(), reserved: below.Reserved(), pinned: below.Pinned(), start: time.Now()}
	c := config{backend: below.Backend}
	if named, ok := mem.(interface{ Name() string }); ok {
		c.name = named.Name()
	}
	c = newConfig(c, opts)
	if c.name == "" {
		return nil, fmt.Errorf("otelmetric: Register: a %T has no name: name it by alloctrace.WithName or otelmetric.WithName", mem)
	}
	r.setAttributes(c)

	meter := c.provider.Meter(ScopeName, metric.WithInstrumentationVersion(Version()))
	var err error
	if r.instruments, err = newInstruments(meter); err == nil {
		r.callback, err = meter.RegisterCallback(r.observe, r.instruments.all...)
	}
	if err != nil {
		return nil, fmt.Errorf("otelmetric: Register: the MeterProvider refuses: %w", err)
	}
	if r.producer = c.producer; r.producer != nil {
		r.producer.add(r)
	}
	return r, nil
}

func (r *Registration) setAttributes(c config) {
	list := []attribute.KeyValue{attribute.String("allocator.name", text.Name(c.name))}
	if c.backend != "" {
		list = append(list, attribute.String("allocator.backend", text.Name(c.backend)))
	}
	r.attributes = attribute.NewSet(list...)
	r.common = []metric.ObserveOption{metric.WithAttributeSet(r.attributes)}
	for i, kind := range []alloctrace.Kind{alloctrace.AllocateFailed, alloctrace.ReallocateFailed, alloctrace.FreeFailed} {
		set := attribute.NewSet(append(list, attribute.String("allocator.operation", kind.Op()))...)
		r.failed[i] = []metric.ObserveOption{metric.WithAttributeSet(set)}
	}
}

// observe is called once a collection by each reader. It returns no error, for which the
// SDK would send nothing at all, of other sources neither.
func (r *Registration) observe(_ context.Context, o metric.Observer) error {
	i := r.instruments
	var s counter.Stats
	if r.try(func() error { s = r.source.Stats(); return nil }) {
		o.ObserveInt64(i.used, s.LiveBytes, r.common...)
		o.ObserveInt64(i.allocated, s.AllocatedBytes, r.common...)
		o.ObserveInt64(i.peak, s.PeakBytes, r.common...)
		o.ObserveInt64(i.blocks, s.LiveBlocks, r.common...)
		o.ObserveInt64(i.allocations, s.Allocations, r.common...)
		o.ObserveInt64(i.reallocations, s.Reallocations, r.common...)
		o.ObserveInt64(i.frees, s.Frees, r.common...)
		o.ObserveInt64(i.failures, s.FailedAllocations, r.failed[0]...)
		o.ObserveInt64(i.failures, s.FailedReallocations, r.failed[1]...)
		o.ObserveInt64(i.failures, s.FailedFrees, r.failed[2]...)
	}
	if r.reserved != nil {
		o.ObserveInt64(i.reserved, r.reserved(), r.common...)
	}
	var pinned int64
	if r.pinned != nil && r.try(func() error { pinned = r.pinned(); return nil }) {
		o.ObserveInt64(i.pinned, pinned, r.common...)
	}
	if r.limit != nil {
		o.ObserveInt64(i.limit, r.limit(), r.common...)
	}
	o.ObserveInt64(i.readFailures, r.unread.Load(), r.common...)
	return nil
}

// try calls f, and reports whether it returned and without an error.
func (r *Registration) try(f func() error) bool {
	if sources.Try(f) != nil {
		r.unread.Add(1)
		return false
	}
	return true
}

// Close ends the export. Once it has returned, the source is not read again and may be closed.
// Close waits for a collection that is running, so the source's Stats must not call it. Later
// calls do nothing. An error is the provider's own.
func (r *Registration) Close() error {
	if r.producer != nil {
		r.producer.remove(r)
	}
	return r.callback.Unregister()
}
