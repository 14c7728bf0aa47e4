package alloctrace

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/recursion"
	"github.com/alloctrace/alloctrace/internal/region"
)

// ErrLive is what [Proxy.Close] returns, wrapped with the figures, when blocks are
// still live.
var ErrLive = blockalloc.ErrLive

// A Proxy is a [blockalloc.Allocator] that hands each operation to an inner
// allocator, counts it and delivers it to hooks. Results and errors are those of the
// inner allocator, untouched. Empty blocks are neither counted nor delivered.
//
// A Proxy may be used by several goroutines at once if the inner allocator may. Its methods
// allocate nothing on the Go heap, but for those that return a Proxy, Close of a child, and
// AllocateContext where it waits, or where it is in a region and above another Proxy.
type Proxy struct {
	// What each operation reads fills one cache line. With hooks it reads first, too.
	inner   blockalloc.Allocator
	counter *counter.Counter
	*state
	hook    Hook          // nil if nobody listens
	pending *atomic.Int64 // not 0 if releases are waiting for the end of a release

	ctx       context.Context
	hooks     []Hook // as they were given
	released  []func(addr, size uintptr)
	requested []requested
	quiet     bool
}

// state is what the views of one Proxy share beside the counter, which is one
// pointer away from a Proxy and not two: after an atomic addition the processor
// has nothing to do while it waits for the next one's address.
type state struct {
	closed  atomic.Bool
	name    string
	root    string           // the name of the Proxy whose child it is, or its own
	id      uint32           // see Attachment
	owner   blockalloc.Owner // nil if the inner allocator is none
	below   bool             // views reach a Proxy below it
	waiting *atomic.Int64    // see Attachment.OnReleased; children have that of their parent
	onQuiet []func()         // see Attachment.OnQuiet
	family
}

// nothingPending stays 0.
var nothingPending atomic.Int64

var (
	_ blockalloc.Allocator = (*Proxy)(nil)
	_ blockalloc.Owner     = (*Proxy)(nil)
	_ blockalloc.Finder    = (*Proxy)(nil)
	_ counter.Source       = (*Proxy)(nil)

	_ blockalloc.ContextAllocator = (*Proxy)(nil)
	_ blockalloc.Resizer          = (*Proxy)(nil)
)

// Wrap returns a Proxy around inner. It panics if inner is nil.
func Wrap(inner blockalloc.Allocator, opts ...Option) *Proxy {
	if inner == nil {
		panic("alloctrace: Wrap(nil): pass an allocator, such as blockalloc.Default()")
	}
	c := configOf(opts)
	inner = c.inner(inner)
	p := &Proxy{
		inner:   inner,
		counter: c.counter,
		pending: &nothingPending,
		ctx:     context.Background(),
		state:   &state{name: c.name, root: c.name, id: lastID.Add(1), waiting: new(atomic.Int64)},
	}
	if p.counter == nil {
		p.counter = new(counter.Counter)
	}
	p.owner, _ = blockalloc.OwnerOf(inner)
	_, p.below = viewed(inner, func(p *Proxy) *Proxy { return p })
	p.attach("", c.hooks)
	p.interpose(p.ctx, nil)
	return p
}

// Allocate allocates from the inner allocator. After [Proxy.Close] it fails with
// blockalloc.ErrClosed.
func (p *Proxy) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	if p.closed.Load() {
		return blockalloc.Block{}, p.allocateFailed(l, p.closedError("Allocate"))
	}
	b, err := p.inner.Allocate(l)
	if err != nil {
		return b, p.allocateFailed(l, err)
	}
	p.counter.Allocate(l.Size, b.Size())
	if p.hook != nil && !b.IsZero() {
		recursion.Check()
		p.hook.Observe(p.ctx, Event{Allocated, b.Addr(), b.Size(), b.Align()}, nil)
	}
	return b, nil
}

// AllocateContext is Allocate in the context ctx, as by [Proxy.WithContext]. If a
// [blockalloc.Limit] refuses the block, it waits for room until ctx is done: one that p wraps, also
// by wrappers that are a [blockalloc.ContextAllocator]. A [blockalloc.Locked] is none, for it would
// wait with its lock held.
func (p *Proxy) AllocateContext(ctx context.Context, l blockalloc.Layout) (blockalloc.Block, error) {
	in := between{p.Unwrap(), ctx, region.ToCount(ctx), p.childName(), p.requested}
	if p.closed.Load() {
		return blockalloc.Block{}, p.allocateInFailed(in, l, p.closedError("AllocateContext"))
	}
	if p.below && in.region != nil {
		ctx = region.Counted(ctx)
	}
	b, err := blockalloc.AllocateContext(ctx, in.inner, l)
	if err != nil {
		return b, p.allocateInFailed(in, l, err)
	}
	in.allocated(l.Size, b)
	p.counter.Allocate(l.Size, b.Size())
	if p.hook != nil && !b.IsZero() {
		recursion.Check()
		p.hook.Observe(in.ctx, Event{Allocated, b.Addr(), b.Size(), b.Align()}, nil)
	}
	return b, nil
}

// Reallocate reallocates b by the inner allocator. After [Proxy.Close] it fails
// with blockalloc.ErrClosed, and b stays live.
//
// If [blockalloc.FromRaw] made b, p counts and delivers what was granted, see [Proxy.Free].
func (p *Proxy) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	given := b
	if b.IsRaw() {
		var err error
		if b, err = blockalloc.Granted(p.inner, b); err != nil {
			return given, p.refuseReallocate(b, size, p.rawError("Reallocate", b, err))
		}
	}
	if p.closed.Load() {
		return given, p.refuseReallocate(b, size, p.closedError("Reallocate"))
	}
	if p.hook != nil && !b.IsZero() {
		recursion.Check()
		p.hook.Observe(p.ctx, Event{Reallocating, b.Addr(), b.Size(), b.Align()}, nil)
	}
	n, err := p.inner.Reallocate(b, size)
	if err != nil {
		if n == b {
			n = given
		}
		return n, p.reallocateFailed(b, err)
	}
	p.reallocated(b, size, n)
	return n, nil
}

// reallocated counts and delivers what has become of b.
func (p *Proxy) reallocated(b blockalloc.Block, size uintptr, n blockalloc.Block) {
	if p.pending.Load() != 0 {
		p.deliverReleased(b)
	}
	if b.IsZero() { // an inner allocator that takes this as an allocation
		p.counter.Allocate(size, n.Size())
	} else {
		p.counter.Reallocate(b.Requested(), b.Size(), size, n.Size())
	}
	if p.hook != nil && !n.IsZero() {
		recursion.Check()
		p.hook.Observe(p.ctx, Event{Reallocated, n.Addr(), n.Size(), n.Align()}, nil)
	}
}

// Free gives b back to the inner allocator, also after [Proxy.Close].
//
// If [blockalloc.FromRaw] made b, p looks up what was granted, and counts and delivers that. For that the inner allocator must
// be a [blockalloc.Finder], or else p refuses the block: see [blockalloc.Granted].
func (p *Proxy) Free(b blockalloc.Block) error {
	if b.IsRaw() {
		var err error
		if b, err = blockalloc.Granted(p.inner, b); err != nil {
			return p.refuseFree(b, p.rawError("Free", b, err))
		}
	}
	if p.hook != nil && !b.IsZero() {
		p.hook.Observe(p.ctx, Event{Freeing, b.Addr(), b.Size(), b.Align()}, nil)
	}
	if err := p.inner.Free(b); err != nil {
		return p.freeFailed(b, err)
	}
	if p.pending.Load() != 0 {
		p.deliverReleased(b)
	}
	p.counter.Free(b.Requested(), b.Size())
	return nil
}

// deliverReleased delivers the end of a release.
//
//go:noinline
func (p *Proxy) deliverReleased(b blockalloc.Block) {
	for _, f := range p.released {
		f(b.Addr(), b.Size())
	}
}

//go:noinline
func (p *Proxy) allocateFailed(l blockalloc.Layout, err error) error {
	return p.allocateInFailed(between{ctx: p.ctx, region: p.region()}, l, err)
}

func (p *Proxy) allocateInFailed(in between, l blockalloc.Layout, err error) error {
	p.counter.FailAllocate()
	p.failed(in, Event{AllocateFailed, 0, l.Size, l.Align}, err)
	return err
}

func (p *Proxy) reallocateFailed(b blockalloc.Block, err error) error {
	p.counter.FailReallocate()
	p.failed(between{ctx: p.ctx, region: p.region()}, Event{ReallocateFailed, b.Addr(), b.Size(), b.Align()}, err)
	return err
}

func (p *Proxy) freeFailed(b blockalloc.Block, err error) error {
	if b.IsZero() {
		return err
	}
	p.counter.FailFree()
	p.failed(between{ctx: p.ctx, region: p.region()}, Event{FreeFailed, b.Addr(), b.Size(), b.Align()}, err)
	return err
}

// refuseReallocate is the failure of a reallocation that the inner allocator is not asked for. It has the events of one that is.
//
//go:noinline
func (p *Proxy) refuseReallocate(b blockalloc.Block, size uintptr, err error) error {
	p.reallocating(b)
	if in, ok := p.inner.(*between); ok {
		_, _ = in.reallocate(b, size, func(old blockalloc.Block, _ uintptr) (blockalloc.Block, error) { return old, err })
	}
	return p.reallocateFailed(b, err)
}

// refuseFree is the failure of a free that the inner allocator is not asked for. It has the events of one that is.
//
//go:noinline
func (p *Proxy) refuseFree(b blockalloc.Block, err error) error {
	if p.hook != nil && !b.IsZero() {
		p.hook.Observe(p.ctx, Event{Freeing, b.Addr(), b.Size(), b.Align()}, nil)
	}
	return p.freeFailed(b, err)
}

// failed delivers a failure, to the regions too.
func (p *Proxy) failed(in between, e Event, err error) {
	if r := in.region; r != nil {
		r.Fail(e.Kind.Op())
		if !p.quiet {
			r.Observe.Failed(in.ctx, e.Kind.Op(), e.Size, e.Align, err)
		}
	}
	if p.hook != nil {
		recursion.Check()
		p.hook.Observe(in.ctx, e, err)
	}
}

func (p *Proxy) rawError(op string, b blockalloc.Block, err error) error {
	return fmt.Errorf("alloctrace: %s(%v) through %s: %w", op, b, p.text(), err)
}

func (p *Proxy) closedError(op string) error {
	return fmt.Errorf("alloctrace: %s through %s: %w: use it before Close", op, p.text(), blockalloc.ErrClosed)
}

// text names p in an error.
func (p *Proxy) text() string {
	if p.name == "" {
		return "a proxy without a name"
	}
	return fmt.Sprintf("proxy %q", p.name)
}

// Stats returns the numbers of this Proxy and its children.
func (p *Proxy) Stats() counter.Stats { return p.counter.Stats() }

// Name returns the name the Proxy was given, "" if none.
func (p *Proxy) Name() string { return p.name }

// String returns, for example, `Proxy "db"`, or "Proxy" if it has no name.
func (p *Proxy) String() string {
	if p.name == "" {
		return "Proxy"
	}
	return fmt.Sprintf("Proxy %q", p.name)
}

// Hooks returns the hooks that p was given, in order; those of a child begin with its parent's. A quiet view has none.
func (p *Proxy) Hooks() []Hook { return slices.Clone(p.hooks) }

// Unwrap returns the inner allocator.
func (p *Proxy) Unwrap() blockalloc.Allocator {
	if b, ok := p.inner.(*between); ok {
		return b.inner
	}
	return p.inner
}

// Owns asks the inner allocator whether it owns b. It is false if that is no
// Owner; [blockalloc.OwnerOf] says whether it is.
func (p *Proxy) Owns(b blockalloc.Block) bool {
	return p.owner != nil && p.owner.Owns(b)
}

// Find returns what the inner allocator finds, nothing if that is no [blockalloc.Finder].
func (p *Proxy) Find(ptr unsafe.Pointer) (blockalloc.Block, bool) {
	if f, ok := p.inner.(blockalloc.Finder); ok {
		return f.Find(ptr)
	}
	return blockalloc.Block{}, false
}

// WithContext returns a view of p whose operations are in the context ctx. Hooks are given ctx,
// and can say in which request or span an operation was. The regions that ctx is inside of
// count the operations, see package tracer. The view counts as p does.
//
// Hooks of a Proxy below p are given ctx too, if p wraps it directly or by wrappers that are a
// [blockalloc.Rewrapper], as those of package blockalloc are. They are not if an allocator in
// between makes blocks of its own out of the memory: that belongs to no one caller.
//
// A view costs an allocation on the Go heap, a second one in a region, and some for each
// wrapper above a Proxy below. Operations through it cost what they cost through p, and what it
// costs to count them in the regions.
func (p *Proxy) WithContext(ctx context.Context) *Proxy {
	return p.inContext(ctx, region.ToCount(ctx))
}

// inContext returns a view of p in ctx that counts in r.
func (p *Proxy) inContext(ctx context.Context, r *region.Region) *Proxy {
	v := *p
	v.inner = p.Unwrap()
	if p.below {
		v.inner, _ = viewed(v.inner, func(below *Proxy) *Proxy { return below.inContext(ctx, nil) })
	}
	v.interpose(ctx, r)
	return &v
}

// interpose puts in front of the inner allocator of p, which nobody has yet, what is needed there.
func (p *Proxy) interpose(ctx context.Context, r *region.Region) {
	p.ctx = ctx
	if r != nil || len(p.requested) > 0 {
		p.inner = &between{p.inner, ctx, r, p.childName(), p.requested}
	}
}

// childName returns the name by which regions know p, nil if it is no child.
func (s *state) childName() *string {
	if s.parent == nil || s.name == "" {
		return nil
	}
	return &s.name
}

// region returns the innermost region in which p counts, nil if there is none.
func (p *Proxy) region() *region.Region {
	if b, ok := p.inner.(*between); ok {
		return b.region
	}
	return nil
}

// Quiet returns a view of p that counts as p does and delivers nothing to hooks. A hook, or the
// writer behind a logger, allocates from it, so that it does not observe its own allocations.
// The Proxies below p that [Proxy.WithContext] reaches are quiet too.
func (p *Proxy) Quiet() *Proxy {
	for _, f := range p.onQuiet {
		f()
	}
	v := *p
	v.hook, v.hooks, v.pending, v.released, v.requested, v.quiet = nil, nil, &nothingPending, nil, nil, true
	v.inner = p.Unwrap()
	if p.below {
		v.inner, _ = viewed(v.inner, (*Proxy).Quiet)
	}
	v.interpose(p.ctx, p.region())
	return &v
}

// viewed returns a with view's result in the place of each Proxy that a is or
// wraps, and whether there is any. Without one it returns a itself, whose state
// the processor is more likely to have at hand than that of a copy.
func viewed(a blockalloc.Allocator, view func(*Proxy) *Proxy) (blockalloc.Allocator, bool) {
	switch w := a.(type) {
	case *Proxy:
		return view(w), true
	case blockalloc.Rewrapper:
		found := false
		v := w.Rewrap(func(inner blockalloc.Allocator) blockalloc.Allocator {
			v, ok := viewed(inner, view)
			found = found || ok
			return v
		})
		if found {
			return v, true
		}
	}
	return a, false
}
