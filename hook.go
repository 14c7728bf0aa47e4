package alloctrace

import "context"

// A Hook observes the events of a [Proxy].
//
// Observe is called synchronously, in the goroutine that allocates or frees, and
// concurrently. The operation waits for it: a release is told before the memory
// can be reused. It must not allocate through the same Proxy, or it is called
// without end; what it needs to allocate comes from [Proxy.Quiet]. It must not
// panic. ctx is the one the Proxy was given by [Proxy.WithContext], else
// context.Background().
type Hook interface {
	Observe(ctx context.Context, e Event)
}

// HookFunc makes a [Hook] of a function.
type HookFunc func(ctx context.Context, e Event)

// Observe calls f.
func (f HookFunc) Observe(ctx context.Context, e Event) { f(ctx, e) }

// both returns a Hook that tells a and then b, of which either may be nil.
func both(a, b Hook) Hook {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	return pair{a, b}
}

type pair struct{ a, b Hook }

func (p pair) Observe(ctx context.Context, e Event) {
	p.a.Observe(ctx, e)
	p.b.Observe(ctx, e)
}
