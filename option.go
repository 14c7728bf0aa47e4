package alloctrace

import "github.com/alloctrace/alloctrace/counter"

// An Option configures a [Proxy]. The order of options does not matter, but that of hooks.
type Option interface{ apply(*config) }

type config struct {
	name    string
	hooks   []Hook
	counter *counter.Counter
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
