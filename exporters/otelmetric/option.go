package otelmetric

import (
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/metric"
)

// An Option configures [Start].
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

// WithMeterProvider says where metrics go: unless set, to the global provider,
// otel.GetMeterProvider, also if that is set later. A nil provider is ignored.
func WithMeterProvider(p metric.MeterProvider) Option {
	return optionFunc(func(c *config) {
		if p != nil {
			c.provider = p
		}
	})
}

// WithProducer has p make the histogram of the allocator's sizes. Without it there
// is none. A nil Producer is ignored.
func WithProducer(p *Producer) Option {
	return optionFunc(func(c *config) {
		if p != nil {
			c.producer = p
		}
	})
}

// WithName sets the attribute allocator.name: unless set, what the source's Name
// method returns, as that of a Proxy.
func WithName(name string) Option {
	return optionFunc(func(c *config) { c.name = name })
}

// WithBackend sets the attribute allocator.backend: unless set, the type of the
// allocator that is reached by following Unwrap and Parent down from the source, as
// "Pool". An empty one leaves the attribute out.
func WithBackend(backend string) Option {
	return optionFunc(func(c *config) { c.backend = backend })
}
