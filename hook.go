package alloctrace

import (
	"context"
	"sync/atomic"
)

// A Hook observes the events of a [Proxy].
//
// Observe is called synchronously, in the goroutine that allocates or frees, and
// concurrently. The operation waits for it: a release is told before the memory
// can be reused. ctx is the one the Proxy was given by [Proxy.WithContext], or the call by
// [Proxy.AllocateContext], else context.Background(). err is the inner allocator's own error
// if e.Kind.Failed, else nil.
//
// Observe must not panic. It must not allocate through the same Proxy, or it is called
// without end, until that is noticed, after some 256 KiB of stack, and the operation panics;
// what it needs to allocate comes from [Proxy.Quiet].
type Hook interface {
	Observe(ctx context.Context, e Event, err error)
}

// HookFunc makes a [Hook] of a function.
type HookFunc func(ctx context.Context, e Event, err error)

// Observe calls f.
func (f HookFunc) Observe(ctx context.Context, e Event, err error) { f(ctx, e, err) }

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

// both is a hook that tells two.
type both struct{ first, then Hook }

func (b *both) Observe(ctx context.Context, e Event, err error) {
	b.first.Observe(ctx, e, err)
	b.then.Observe(ctx, e, err)
}
