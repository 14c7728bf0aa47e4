package alloctrace

import (
	"context"
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/recursion"
	"github.com/alloctrace/alloctrace/internal/region"
)

// A Hook observes the events of a [Proxy].
//
// Observe is called synchronously, in the goroutine that allocates or frees, and
// concurrently. The operation waits for it: a release is delivered before the memory
// can be reused. ctx is that of [Proxy.WithContext] or [Proxy.AllocateContext], else
// context.Background(). err is the inner allocator's own error if e.Kind.Failed, else nil.
//
// Observe must not panic. It must not allocate through the same Proxy: it would be called
// again, without end. The operation panics once that has taken some 256 KiB of stack. A hook
// allocates from [Proxy.Quiet].
type Hook interface {
	Observe(ctx context.Context, e Event, err error)
}

// HookFunc makes a [Hook] of a function.
type HookFunc func(ctx context.Context, e Event, err error)

// Observe calls f.
func (f HookFunc) Observe(ctx context.Context, e Event, err error) { f(ctx, e, err) }

// An Attacher is a [Hook] that has a part for each Proxy and each child. A part knows whose
// events it observes, and can ask for more than events. A hook that hands on events to another
// hook must be an Attacher that attaches the other one.
type Attacher interface {
	Hook

	// Attach returns the part that observes the events of one Proxy or one child, and of
	// its views. [WithHooks] and [Proxy.Child] call it, once for each child. Children come and
	// go, and no call says that one has ended: a hook keeps what it has by their names. Observe
	// itself is called only by code that does not attach, and then nothing is known of whose
	// events they are.
	Attach(to *Attachment) Hook
}

// An Attachment says whose events a hook will observe. It must not be used after Attach has
// returned.
type Attachment struct {
	Proxy string // the name of the Proxy, "" if it has none
	Child string // the name of the child, not its path, which others may have too; "" for the Proxy itself
	ID    uint32 // the number of the Proxy in this process; children have that of their parent

	pending   *atomic.Int64
	released  []func(addr, size uintptr)
	requested []requested
	quiet     []func()
}

// requested is what is called in front of the inner allocator.
type requested func(ctx context.Context, e Event, requested uintptr, began uint64) uint64

// Attach returns the part of h, or h itself if it has no parts. A hook that hands on some events alone chooses them here, too: a
// function that h gives to [Attachment.OnRequested] is called for the events that all of chosen choose.
func (a *Attachment) Attach(h Hook, chosen ...func(Event) bool) Hook {
	t, ok := h.(Attacher)
	if !ok {
		return h
	}
	before := len(a.requested)
	part := t.Attach(a)
	for i, f := range a.requested[before:] {
		for _, is := range chosen {
			f = f.ofChosen(is)
		}
		a.requested[before+i] = f
	}
	return part
}

// ofChosen returns f for the events that are chosen.
func (f requested) ofChosen(is func(Event) bool) requested {
	return func(ctx context.Context, e Event, requested uintptr, began uint64) uint64 {
		if is(e) {
			return f(ctx, e, requested, began)
		}
		return 0
	}
}

// OnReleased has f called when a release has succeeded, in the goroutine that releases. The
// event of a release comes before it is tried, so that a hook must keep what it knows of the
// block until the end. A release that fails has another event.
//
// f is called only while pending is not 0. The hook adds 1 for each release whose end it waits
// for, and subtracts 1 when f is called for it. Meanwhile f is called for other releases, too.
// By then the address may be that of another block.
func (a *Attachment) OnReleased(f func(addr, size uintptr)) (pending *atomic.Int64) {
	if a.pending == nil {
		a.pending = new(atomic.Int64)
	}
	a.released = append(a.released, f)
	return a.pending
}

// OnRequested has f called for each acquisition, with the size in bytes that was requested,
// before hooks observe it, and for Reallocating and ReallocateFailed. So f knows which events are of one
// reallocation, though others of the same address can come between them: what it returns for Reallocating comes as
// began with Reallocated or ReallocateFailed. Otherwise began is 0, and the result is not used. If the new size is zero, neither
// follows. A Proxy without such functions pays nothing for them.
func (a *Attachment) OnRequested(f func(ctx context.Context, e Event, requested uintptr, began uint64) uint64) {
	a.requested = append(a.requested, f)
}

// OnQuiet has f called before a quiet view is made, whose operations nobody observes: see
// [Proxy.Quiet]. Blocks may be freed that were not seen to be allocated.
func (a *Attachment) OnQuiet(f func()) { a.quiet = append(a.quiet, f) }

// lastID is the ID of the Proxy that was made last.
var lastID atomic.Uint32

// attach has hooks observe p, which nobody has yet.
func (p *Proxy) attach(child string, hooks []Hook) {
	a := &Attachment{Proxy: p.root, Child: child, ID: p.id, pending: p.waiting}
	for _, h := range hooks {
		part := a.Attach(h)
		if p.hook != nil {
			part = &both{p.hook, part}
		}
		p.hook = part
	}
	if len(a.released) > 0 {
		p.pending, p.released = a.pending, a.released
	}
	p.hooks, p.requested, p.onQuiet = hooks, a.requested, a.quiet
}

// both is a hook that hands events on to two.
type both struct{ first, then Hook }

func (b *both) Observe(ctx context.Context, e Event, err error) {
	b.first.Observe(ctx, e, err)
	b.then.Observe(ctx, e, err)
}

// A between is between a Proxy and its inner allocator where somebody needs more than the
// Proxy's own counts and events, so that it costs others nothing.
type between struct {
	inner     blockalloc.Allocator
	ctx       context.Context
	region    *region.Region // nil, or the innermost one of ctx
	child     *string        // the name of the child that it belongs to, nil if it is none
	requested []requested
}

var _ blockalloc.Allocator = (*between)(nil)

// Unwrap and Find are for [blockalloc.Granted].
func (b *between) Unwrap() blockalloc.Allocator { return b.inner }

func (b *between) Find(p unsafe.Pointer) (blockalloc.Block, bool) {
	if f, ok := b.inner.(blockalloc.Finder); ok {
		return f.Find(p)
	}
	return blockalloc.Block{}, false
}

func (b *between) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	n, err := b.inner.Allocate(l)
	if err != nil {
		return n, err
	}
	b.allocated(l.Size, n)
	return n, nil
}

func (b *between) Reallocate(old blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	return b.reallocate(old, size, b.inner.Reallocate)
}

// reallocate has call reallocate a block. It calls the functions before that, and after it the other way around.
func (b *between) reallocate(old blockalloc.Block, size uintptr, call func(blockalloc.Block, uintptr) (blockalloc.Block, error)) (blockalloc.Block, error) {
	var few [4]uint64
	began := few[:0]
	for _, f := range b.requested {
		recursion.Check()
		var id uint64
		if !old.IsZero() {
			id = f(b.ctx, Event{Reallocating, old.Addr(), old.Size(), old.Align()}, size, 0)
		}
		began = append(began, id)
	}
	n, err := call(old, size)
	switch {
	case err != nil:
	case old.IsZero():
		b.region.Allocate(size, n.Size(), b.child)
	default:
		b.region.Reallocate(old.Size(), size, n.Size(), b.child)
	}
	for i := len(b.requested) - 1; i >= 0; i-- { // no function of another package is to stand between in a stack
		f := b.requested[i]
		switch {
		case err != nil:
			f(b.ctx, Event{ReallocateFailed, old.Addr(), old.Size(), old.Align()}, size, began[i])
		case !n.IsZero():
			f(b.ctx, Event{Reallocated, n.Addr(), n.Size(), n.Align()}, size, began[i])
		}
	}
	return n, err
}

func (b *between) Free(old blockalloc.Block) error {
	err := b.inner.Free(old)
	if err == nil {
		b.region.Free(old.Size(), b.child)
	}
	return err
}

func (b *between) allocated(requested uintptr, n blockalloc.Block) {
	b.region.Allocate(requested, n.Size(), b.child)
	if n.IsZero() {
		return
	}
	for _, f := range b.requested {
		recursion.Check()
		f(b.ctx, Event{Allocated, n.Addr(), n.Size(), n.Align()}, requested, 0)
	}
}
