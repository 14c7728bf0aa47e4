package alloctrace

import (
	"context"
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/recursion"
)

// A Hook observes the events of a [Proxy].
//
// Observe is called synchronously, in the goroutine that allocates or frees, and
// concurrently. The operation waits for it: a release is told before the memory
// can be reused. It must not allocate through the same Proxy, or it is called
// without end, until that is noticed, after some 256 KiB of stack, and the operation panics; what
// it needs to allocate comes from [Proxy.Quiet]. It must not panic. ctx is the one the Proxy was given by [Proxy.WithContext], else
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
// Observe does with the Event of these parts. That it is called without end is noticed only
// when operations fail.
type PartsHook interface {
	Hook
	ObserveParts(ctx context.Context, k Kind, addr, size, align uintptr)
}

// A TrackingHook is a [Hook] that keeps what it knows of blocks, as hooks.Leaks does. A
// release is delivered before it is tried, so that the hook has to keep the block until it
// has ended, and events say whose block it is by its address alone. So a Proxy has a part of the
// hook for itself. A hook that hands on events to another one should be a TrackingHook too.
type TrackingHook interface {
	Hook

	// Track returns the part for one Proxy, its views and its children: it is called by
	// [WithHooks]. The part adds 1 to pending for each release whose end it waits for, and
	// takes it off again once that is delivered.
	Track(pending *atomic.Int64) ReleaseHook
}

// A ReleaseHook is a [Hook] that is also called when a release has succeeded, in the goroutine
// that releases. Its address may be that of another block by then. Other goroutines'
// releases, and those that it does not wait for, may be delivered too. A release that
// has failed is an event.
type ReleaseHook interface {
	Hook
	Released(addr, size uintptr)
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

func (w *whole) Observe(ctx context.Context, e Event) {
	recursion.Check()
	w.Hook.Observe(ctx, e)
}

func (w *whole) ObserveParts(ctx context.Context, k Kind, addr, size, align uintptr) {
	var here struct{}
	if uintptr(unsafe.Pointer(&here))&recursion.Elsewhere == 0 { // recursion.Check, with an instruction less
		recursion.Look()
	}
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
