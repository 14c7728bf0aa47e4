package otelmetric

import (
	"context"
	"errors"
	"fmt"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/alloctrace/alloctrace/hooks"
)

// StartHook tells OpenTelemetry what a hook has done and takes, such as a hooks.Ring, a
// hooks.Profile, or a hooks.Meter of either, whenever metrics are collected, until
// [Registration.Stop]. What has the same name is added up. Of the options it heeds
// [WithMeterProvider].
//
// It fails, and has then registered nothing, if hook is nil or name empty, or if the
// provider refuses an instrument. A collection asks hook once.
func StartHook(hook hooks.UsageSource, name string, opts ...Option) (*Registration, error) {
	if hook == nil || name == "" {
		return nil, fmt.Errorf("otelmetric.StartHook(%v, %q): pass a hook that tells its Usage, such as a hooks.Ring, and a name for it", hook, name)
	}
	meter := newConfig(config{}, opts).provider.Meter(ScopeName, metric.WithInstrumentationVersion(Version()))
	var failed error
	counter := func(name, unit, description string) metric.Int64ObservableCounter {
		c, err := meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(description))
		failed = errors.Join(failed, err)
		return c
	}
	events := counter("allocator.instrumentation.events", "{event}", "Events that the hook was told of.")
	sampled := counter("allocator.instrumentation.sampled", "{sample}", "Blocks or events that the hook has kept, or told another.")
	dropped := counter("allocator.instrumentation.dropped", "{sample}", "Blocks or events that the hook could not keep, or not tell.")
	memory, err := meter.Int64ObservableUpDownCounter("allocator.instrumentation.memory", metric.WithUnit("By"),
		metric.WithDescription("Bytes of the Go heap that the hook holds."))
	times, err2 := meter.Float64ObservableCounter("allocator.instrumentation.time", metric.WithUnit("s"),
		metric.WithDescription("For how long those who allocate have waited for the hook."))
	r := &Registration{}
	if err = errors.Join(failed, err, err2); err == nil {
		of := metric.WithAttributes(attribute.String("allocator.instrumentation.hook", name))
		r.callback, err = meter.RegisterCallback(func(_ context.Context, o metric.Observer) error {
			u := hook.Usage()
			if u.Events != 0 { // else nobody may have counted
				o.ObserveInt64(events, u.Events, of)
			}
			o.ObserveInt64(sampled, u.Sampled, of)
			o.ObserveInt64(dropped, u.Dropped, of)
			o.ObserveInt64(memory, u.Bytes, of)
			if u.Time != 0 {
				o.ObserveFloat64(times, u.Time.Seconds(), of)
			}
			return nil
		}, events, sampled, dropped, memory, times)
	}
	if err != nil {
		return nil, fmt.Errorf("otelmetric.StartHook: the MeterProvider refuses: %w", err)
	}
	return r, nil
}
