package alloctrace

import (
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
)

// An Option configures a [Proxy]. The order of options does not matter, but that of hooks and wrappers.
type Option interface{ apply(*config) }

type config struct {
	name    string
	hooks   []Hook
	counter *counter.Counter
	wraps   []func(blockalloc.Allocator) blockalloc.Allocator
}

// inner returns a as the options have it wrapped.
func (c *config) inner(a blockalloc.Allocator) blockalloc.Allocator {
	for _, wrap := range c.wraps {
		if a = wrap(a); a == nil {
			panic("alloctrace: WithInner: the function returned nil: have it return a wrapper of its argument, such as a blockalloc.Limit")
		}
	}
	return a
}

func configOf(opts []Option) (c config) {
	for _, o := range opts {
		o.apply(&c)
	}
	return c
}

type optionFunc func(*config)

func (f optionFunc) apply(c *config) { f(c) }

// WithName names the Proxy, so that people can distinguish it from others.
func WithName(name string) Option {
	return optionFunc(func(c *config) { c.name = name })
}

// WithHooks adds hooks, to which each event is delivered in the order given. A nil Hook
// is left out.
func WithHooks(hooks ...Hook) Option {
	return optionFunc(func(c *config) {
		for _, h := range hooks {
			if h != nil {
				c.hooks = append(c.hooks, h)
			}
		}
	})
}

// WithCounter has the Proxy count in c: counter.Exact(), for a peak that is exact to the
// byte, or one that other Proxies count in too. A child with a Counter of its own is no
// part of its parent's counts. A nil Counter is left out.
func WithCounter(c *counter.Counter) Option {
	return optionFunc(func(cfg *config) {
		if c != nil {
			cfg.counter = c
		}
	})
}

// WithInner puts a wrapper between the Proxy and its inner allocator: the one that wrap returns. It is for a
// child that has a limit of its own, which its counts and hooks see reached:
//
//	tenant := mem.Child("tenant-7", alloctrace.WithInner(func(inner blockalloc.Allocator) blockalloc.Allocator {
//		return blockalloc.NewLimit(inner, 16<<20)
//	}))
//
// The wrapper must hand out the blocks of inner, as those of package blockalloc do. [Wrap] or [Proxy.Child] calls wrap
// once, and panics if it returns nil. A nil function is left out. Of several wrappers, the last is outermost.
func WithInner(wrap func(inner blockalloc.Allocator) blockalloc.Allocator) Option {
	return optionFunc(func(c *config) {
		if wrap != nil {
			c.wraps = append(c.wraps, wrap)
		}
	})
}
