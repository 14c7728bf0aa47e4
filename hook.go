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

// A PartsHook is a [Hook] that takes an event without an Err also in parts. A Proxy tells
// it so, and what is told stays in registers, where an [Event], too large for them, is
// written to memory twice: worth it where some nanoseconds are. ObserveParts does what
// Observe does with the Event of these parts.
type PartsHook interface {
	Hook
	ObserveParts(ctx context.Context, k Kind, addr, size, align uintptr)
}

// parts returns a PartsHook that does what h does.
func parts(h Hook) PartsHook {
	if p, ok := h.(PartsHook); ok {
		return p
	}
	return &whole{h}
}

// whole puts events together again.
type whole struct{ Hook }

func (w *whole) ObserveParts(ctx context.Context, k Kind, addr, size, align uintptr) {
	w.Hook.Observe(ctx, Event{Kind: k, Addr: addr, Size: size, Align: align})
}

// both returns a hook that tells a, if there is one, and then b.
func both(a, b PartsHook) PartsHook {
	if a == nil {
		return b
	}
	return &pair{a, b}
}

type pair struct{ a, b PartsHook }

func (p *pair) Observe(ctx context.Context, e Event) {
	p.a.Observe(ctx, e)
	p.b.Observe(ctx, e)
}

func (p *pair) ObserveParts(ctx context.Context, k Kind, addr, size, align uintptr) {
	p.a.ObserveParts(ctx, k, addr, size, align)
	p.b.ObserveParts(ctx, k, addr, size, align)
}
