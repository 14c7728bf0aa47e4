package otelmetric

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/internal/metrics"
	"github.com/alloctrace/alloctrace/internal/text"
)

// RegisterHook exports the [hooks.Usage] of a hook, such as a ring.Ring, a
// heapprofile.Profile, or a hooks.Meter of either,
// whenever metrics are collected, until [Registration.Close]. Hooks of the same name are added
// up. It ignores options other than [WithMeterProvider].
//
// RegisterHook returns an error, and has registered nothing, if name is empty or the provider
// refuses an instrument. It panics if hook is nil. A collection reads the hook once.
func RegisterHook(hook hooks.UsageSource, name string, opts ...Option) (*Registration, error) {
	if hook == nil {
		panic(fmt.Sprintf("otelmetric: RegisterHook(nil, %q): pass a hook that reports its Usage, such as a ring.Ring", name))
	}
	if name == "" {
		return nil, errors.New(`otelmetric: RegisterHook: the name is "": pass one, by which the hook is known from others`)
	}
	meter := newConfig(config{}, opts).provider.Meter(ScopeName, metric.WithInstrumentationVersion(Version()))
	add := adder{meter: meter}
	events, sampled, dropped := add.int64(metrics.HookEvents), add.int64(metrics.HookSampled), add.int64(metrics.HookDropped)
	memory, readFailures := add.int64(metrics.HookMemory), add.int64(metrics.HookReadFailures)
	times, err := meter.Float64ObservableCounter(metrics.HookTime.Name, metric.WithUnit(metrics.HookTime.Unit), metric.WithDescription(metrics.HookTime.Help))
	r := &Registration{}
	if err = errors.Join(add.err, err); err == nil {
		of := metric.WithAttributes(attribute.String("allocator.instrumentation.hook", text.Name(name)))
		r.callback, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
			var u hooks.Usage
			if r.try(func() error { u = hook.Usage(); return nil }) {
				if u.Events != 0 { // else nobody may have counted
					o.ObserveInt64(events, u.Events, of)
				}
				o.ObserveInt64(sampled, u.Sampled, of)
				o.ObserveInt64(dropped, u.Dropped, of)
				o.ObserveInt64(memory, u.Bytes, of)
				if u.Time != 0 {
					o.ObserveFloat64(times, u.Time.Seconds(), of)
				}
			}
			o.ObserveInt64(readFailures, r.unread.Load(), of)
			return nil
		}, append(add.all, times)...)
	}
	if err != nil {
		return nil, fmt.Errorf("otelmetric: RegisterHook: the MeterProvider refuses: %w", err)
	}
	return r, nil
}
