package tracehttp

import (
	"go.opentelemetry.io/otel/metric"

	"github.com/alloctrace/alloctrace/tracer"
)

// An Option configures [NewMiddleware].
type Option interface{ apply(*config) }

type optionFunc func(*config)

func (f optionFunc) apply(c *config) { f(c) }

type config struct {
	meters metric.MeterProvider
	region []tracer.Option
}

// WithMeterProvider says where metrics go. Without it, or if p is nil, they go to the global
// provider, otel.GetMeterProvider, also if that is set later.
func WithMeterProvider(p metric.MeterProvider) Option {
	return optionFunc(func(c *config) { c.meters = p })
}

// WithRegion adds options of the regions, such as [tracer.WithTracerProvider] and [tracer.WithBudget].
func WithRegion(opts ...tracer.Option) Option {
	return optionFunc(func(c *config) { c.region = append(c.region, opts...) })
}
