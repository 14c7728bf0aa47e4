package tracegrpc

import (
	"go.opentelemetry.io/otel/metric"

	"github.com/alloctrace/alloctrace/tracer"
)

// An Option configures the interceptors.
type Option interface{ apply(*config) }

type optionFunc func(*config)

func (f optionFunc) apply(c *config) { f(c) }

type config struct {
	meters   metric.MeterProvider
	region   []tracer.Option
	children bool
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

// WithChildren makes each call a region of a child of mem that is named after its method, "package.Service/Method".
// So mem.ChildStats has what is live by method, at any time, and exporters show it by child. What counts there is what
// handlers allocate by tracer.FromContext(ctx).Allocator(). What they allocate by mem itself is in mem's counts, and in the
// region's, but in no child's. There is a child for each method that was called, and one named "unknown method" for
// what a grpc.UnknownServiceHandler serves. The interceptors panic if mem is no Proxy.
func WithChildren() Option {
	return optionFunc(func(c *config) { c.children = true })
}
