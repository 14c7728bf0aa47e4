package tracer

import (
	"context"
	"reflect"
	"sync/atomic"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"
)

// An Option configures a [Region], the hook of [Failures] or [Reports].
type Option interface{ apply(*config) }

type optionFunc func(*config)

func (f optionFunc) apply(c *config) { f(c) }

type config struct {
	provider    trace.TracerProvider
	attributes  []attribute.KeyValue
	maxFailures int64
	budget      *Budget
	logs        func(context.Context, LogRecord) // nil if there is no log
	labels      bool
}

func newConfig(maxFailures int, opts []Option) *config {
	c := &config{maxFailures: int64(maxFailures)}
	for _, o := range opts {
		o.apply(c)
	}
	return c
}

var noOptions = newConfig(regionFailures, nil)

// regionConfig returns what opts say of a region.
func regionConfig(opts []Option) *config {
	if len(opts) == 0 {
		return noOptions
	}
	return newConfig(regionFailures, opts)
}

// tracer returns the tracer for spans below the one in ctx.
func (c *config) tracer(ctx context.Context) trace.Tracer {
	p := c.provider
	if p == nil {
		p = otel.GetTracerProvider()
		if span := trace.SpanFromContext(ctx); span.IsRecording() { // a remote one has no provider
			p = span.TracerProvider()
		}
	}
	return tracerOf(p)
}

// lastTracer is the tracer that was used last, which is the one that is used next mostly.
var lastTracer atomic.Pointer[providedTracer]

type providedTracer struct {
	provider trace.TracerProvider // a pointer
	tracer   trace.Tracer
}

// tracerOf returns p's tracer. To ask p costs a lock.
func tracerOf(p trace.TracerProvider) trace.Tracer {
	if reflect.TypeOf(p).Kind() != reflect.Pointer { // others need not be comparable
		return p.Tracer(ScopeName)
	}
	if last := lastTracer.Load(); last != nil && last.provider == p {
		return last.tracer
	}
	t := p.Tracer(ScopeName)
	lastTracer.Store(&providedTracer{p, t})
	return t
}

// WithTracerProvider says where spans go. Without it, or if p is nil, they go where
// the span in the context goes, and if there is none to the global provider,
// otel.GetTracerProvider.
func WithTracerProvider(p trace.TracerProvider) Option {
	return optionFunc(func(c *config) { c.provider = p })
}

// WithAttributes adds attributes to the spans.
func WithAttributes(attributes ...attribute.KeyValue) Option {
	return optionFunc(func(c *config) { c.attributes = append(c.attributes, attributes...) })
}

// WithBudget bounds how many spans are started in a second, together with all else that has the
// same budget.
func WithBudget(b *Budget) Option {
	return optionFunc(func(c *config) { c.budget = b })
}

// regionFailures is how many failures of a region have a span unless [WithMaxFailures] is
// given: it bounds what a region can cost when memory is short.
const regionFailures = 32

// WithMaxFailures sets how many failures have a span: 32 of a region unless
// set, all for the hook of [Failures] and for [Reports]. The others are only counted.
func WithMaxFailures(n int) Option {
	return optionFunc(func(c *config) { c.maxFailures = int64(n) })
}
