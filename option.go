package alloctrace

import (
	"context"
	"slices"
	"sync/atomic"

	"github.com/alloctrace/alloctrace/counter"
)

// An Option configures a [Proxy].
type Option interface{ apply(*Proxy) }

type optionFunc func(*Proxy)

func (f optionFunc) apply(p *Proxy) { f(p) }

// WithName names the Proxy, for people to tell it from others.
func WithName(name string) Option {
	return optionFunc(func(p *Proxy) { p.name = name })
}

// WithHooks adds hooks, which are told each event in the order given. A nil Hook
// is left out.
func WithHooks(hooks ...Hook) Option {
	return optionFunc(func(p *Proxy) {
		for _, h := range hooks {
			if h == nil {
				continue
			}
			if t, ok := h.(TrackingHook); ok {
				if p.pending == &nothingPending {
					p.pending = new(atomic.Int64)
				}
				r := t.Track(p.pending)
				p.releases = append(slices.Clip(p.releases), r)
				h = r
			}
			if p.hook != nil {
				h = &both{p.hook, h}
			}
			p.hook = h
		}
	})
}

// WithCounter has the Proxy count in c: counter.Exact(), for a peak that is exact to the
// byte, or one that other Proxies count in too. A child with a Counter of its own is no
// part of its parent's counts. A nil Counter is left out.
func WithCounter(c *counter.Counter) Option {
	return optionFunc(func(p *Proxy) {
		if c != nil {
			p.counter = c
		}
	})
}

// WithContextFunc has f applied to each context that the Proxy is given after
// this option, so as to add to it what hooks are to find there. It must not
// return nil.
func WithContextFunc(f func(context.Context) context.Context) Option {
	return optionFunc(func(p *Proxy) { p.contextFunc = f })
}

// WithContext sets the context that hooks are told events with, as
// [Proxy.WithContext] does.
func WithContext(ctx context.Context) Option {
	return optionFunc(func(p *Proxy) { p.setContext(ctx) })
}
