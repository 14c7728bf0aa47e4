package tracer

import (
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// An Option configures a [Region] or the hook of [Failures].
type Option interface{ apply(*config) }

type optionFunc func(*config)

func (f optionFunc) apply(c *config) { f(c) }

type config struct {
	provider    trace.TracerProvider
	attributes  []attribute.KeyValue
	maxFailures int64
}

func (c *config) tracer() trace.Tracer { return c.provider.Tracer(ScopeName) }

// WithTracerProvider says where spans go. A nil provider is ignored: spans then
// go to the global one, otel.GetTracerProvider.
func WithTracerProvider(p trace.TracerProvider) Option {
	return optionFunc(func(c *config) {
		if p != nil {
			c.provider = p
		}
	})
}

// WithAttributes adds attributes to the spans.
func WithAttributes(attributes ...attribute.KeyValue) Option {
	return optionFunc(func(c *config) { c.attributes = append(c.attributes, attributes...) })
}

// defaultMaxFailures bounds what one region can cost when memory is short: each
// failure that is told is a span.
const defaultMaxFailures = 32

// WithMaxFailures sets how many failures are told as spans, 32 unless set. The
// others are only counted.
func WithMaxFailures(n int) Option {
	return optionFunc(func(c *config) { c.maxFailures = int64(n) })
}
