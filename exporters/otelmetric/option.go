package otelmetric

import (
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
)

// An Option configures [Register]. The order of options does not matter. A nil Option is left out.
type Option interface{ apply(*config) }

type optionFunc func(*config)

func (f optionFunc) apply(c *config) { f(c) }

type config struct {
	provider      metric.MeterProvider
	producer      *Producer
	name, backend string
}

func newConfig(c config, opts []Option) config {
	for _, o := range opts {
		if o != nil {
			o.apply(&c)
		}
	}
	if c.provider == nil {
		c.provider = otel.GetMeterProvider()
	}
	return c
}

// WithMeterProvider sets where metrics go. Without it, or if p is nil, they go to the global
// provider, otel.GetMeterProvider, also if that is set later.
func WithMeterProvider(p metric.MeterProvider) Option {
	return optionFunc(func(c *config) { c.provider = p })
}

// WithProducer has p make the histogram of the allocator's sizes. Without it, or if p is nil,
// there is none.
func WithProducer(p *Producer) Option {
	return optionFunc(func(c *config) { c.producer = p })
}

// WithName sets the attribute allocator.name. Without it the attribute is what the source's
// Name method returns, if it has one, as a Proxy has.
func WithName(name string) Option {
	return optionFunc(func(c *config) { c.name = name })
}

// WithBackend sets the attribute allocator.backend. Without it the attribute is the type of the
// allocator at the bottom, as "Pool", which Unwrap and Parent lead to. An empty one leaves the
// attribute out.
func WithBackend(backend string) Option {
	return optionFunc(func(c *config) { c.backend = backend })
}
