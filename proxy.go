package alloctrace

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/recursion"
)

// ErrLive is what [Proxy.Close] returns, wrapped with the figures, when blocks are
// still live.
var ErrLive = blockalloc.ErrLive

// A Proxy is a [blockalloc.Allocator] that hands each operation to an inner
// allocator, counts it and tells it to hooks. Results and errors are those of the
// inner allocator, untouched. Empty blocks are neither counted nor told.
//
// A Proxy may be used by several goroutines at once if the inner allocator may.
// Its methods cost no allocation on the Go heap but for those that return a
// Proxy, and AllocateContext of a child with a name or where it has to wait.
type Proxy struct {
	// What each operation reads fills one cache line. With hooks it reads first, too.
	inner   blockalloc.Allocator
	counter *counter.Counter
	*state
	hook    Hook          // nil if nobody listens
	pending *atomic.Int64 // not 0 if releases are waiting for the end of a release

	ctx         context.Context
	releases    []ReleaseHook
	name        string
	child       bool
	contextFunc func(context.Context) context.Context // nil, or makes ctx of what is given
	owner       blockalloc.Owner                      // nil if the inner allocator is none
}

// state is what the views of one Proxy share beside the counter, which is one
// pointer away from a Proxy and not two: after an atomic addition the processor
// has nothing to do while it waits for the next one's address.
type state struct {
	closed   atomic.Bool
	mu       sync.Mutex
	children []*Proxy
}

// nothingPending stays 0.
var nothingPending atomic.Int64

var (
	_ blockalloc.Allocator = (*Proxy)(nil)
	_ blockalloc.Owner     = (*Proxy)(nil)
	_ counter.Source       = (*Proxy)(nil)

	_ blockalloc.ContextAllocator = (*Proxy)(nil)
)

// Wrap returns a Proxy around inner. It panics if inner is nil.
func Wrap(inner blockalloc.Allocator, opts ...Option) *Proxy {
	if inner == nil {
		panic("alloctrace: Wrap(nil): pass an allocator, such as blockalloc.Default()")
	}
	p := &Proxy{
		inner:   inner,
		counter: new(counter.Counter),
		pending: &nothingPending,
		ctx:     context.Background(),
		state:   new(state),
	}
	p.owner, _ = blockalloc.OwnerOf(inner)
	for _, o := range opts {
		o.apply(p)
	}
	return p
}

// Allocate allocates from the inner allocator. After [Proxy.Close] it fails with
// blockalloc.ErrClosed.
func (p *Proxy) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	if p.closed.Load() {
		return blockalloc.Block{}, p.allocateFailed(p.ctx, l, p.closedError("Allocate"))
	}
	b, err := p.inner.Allocate(l)
	if err != nil {
		return b, p.allocateFailed(p.ctx, l, err)
	}
	p.counter.Allocate(l.Size, b.Size())
	if p.hook != nil && !b.IsZero() {
		recursion.Check()
		p.hook.Observe(p.ctx, Event{Allocated, b.Addr(), b.Size(), b.Align()}, nil)
	}
	return b, nil
}

// AllocateContext is Allocate by [blockalloc.AllocateContext]: where a [blockalloc.Limit]
// below is in the way it waits until ctx is done, and only then has failed. Other
// allocators between that and the Proxy do not wait. Hooks are told ctx.
func (p *Proxy) AllocateContext(ctx context.Context, l blockalloc.Layout) (blockalloc.Block, error) {
	ctx = p.context(ctx)
	if p.closed.Load() {
		return blockalloc.Block{}, p.allocateFailed(ctx, l, p.closedError("AllocateContext"))
	}
	b, err := blockalloc.AllocateContext(ctx, p.inner, l)
	if err != nil {
		return b, p.allocateFailed(ctx, l, err)
	}
	p.counter.Allocate(l.Size, b.Size())
	if p.hook != nil && !b.IsZero() {
		recursion.Check()
		p.hook.Observe(ctx, Event{Allocated, b.Addr(), b.Size(), b.Align()}, nil)
	}
	return b, nil
}

// Reallocate reallocates b by the inner allocator. After [Proxy.Close] it fails
// with blockalloc.ErrClosed, and b stays live.
func (p *Proxy) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	if p.closed.Load() {
		return b, p.reallocateFailed(b, p.closedError("Reallocate"))
	}
	if p.hook != nil && !b.IsZero() {
		recursion.Check()
		p.hook.Observe(p.ctx, Event{Reallocating, b.Addr(), b.Size(), b.Align()}, nil)
	}
	n, err := p.inner.Reallocate(b, size)
	if err != nil {
		return n, p.reallocateFailed(b, err)
	}
	if p.pending.Load() != 0 {
		p.released(b)
	}
	if b.IsZero() { // an inner allocator that takes this as an allocation
		p.counter.Allocate(size, n.Size())
	} else {
		p.counter.Reallocate(b.Size(), size, n.Size())
	}
	if p.hook != nil && !n.IsZero() {
		recursion.Check()
		p.hook.Observe(p.ctx, Event{Reallocated, n.Addr(), n.Size(), n.Align()}, nil)
	}
	return n, nil
}

// Free gives b back to the inner allocator, also after [Proxy.Close].
func (p *Proxy) Free(b blockalloc.Block) error {
	if p.hook != nil && !b.IsZero() {
		p.hook.Observe(p.ctx, Event{Freeing, b.Addr(), b.Size(), b.Align()}, nil)
	}
	if err := p.inner.Free(b); err != nil {
		return p.freeFailed(b, err)
	}
	if p.pending.Load() != 0 {
		p.released(b)
	}
	p.counter.Free(b.Size())
	return nil
}

// released delivers the end of a release.
//
//go:noinline
func (p *Proxy) released(b blockalloc.Block) {
	for _, r := range p.releases {
		r.Released(b.Addr(), b.Size())
	}
}

func (p *Proxy) allocateFailed(ctx context.Context, l blockalloc.Layout, err error) error {
	p.counter.FailAllocate()
	p.failed(ctx, Event{AllocateFailed, 0, l.Size, l.Align}, err)
	return err
}

func (p *Proxy) reallocateFailed(b blockalloc.Block, err error) error {
	p.counter.FailReallocate()
	p.failed(p.ctx, Event{ReallocateFailed, b.Addr(), b.Size(), b.Align()}, err)
	return err
}

func (p *Proxy) freeFailed(b blockalloc.Block, err error) error {
	if b.IsZero() {
		return err
	}
	p.counter.FailFree()
	p.failed(p.ctx, Event{FreeFailed, b.Addr(), b.Size(), b.Align()}, err)
	return err
}

func (p *Proxy) failed(ctx context.Context, e Event, err error) {
	if p.hook != nil {
		recursion.Check()
		p.hook.Observe(ctx, e, err)
	}
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

// Unwrap returns the inner allocator.
func (p *Proxy) Unwrap() blockalloc.Allocator { return p.inner }

// Owns asks the inner allocator whether it owns b. It is false if that is no
// Owner; [blockalloc.OwnerOf] tells.
func (p *Proxy) Owns(b blockalloc.Block) bool {
	return p.owner != nil && p.owner.Owns(b)
}

// Child returns a Proxy for one part of the program, with counts of its own that
// are part of p's as well, at no cost to either. It has the inner allocator,
// the hooks and the context of p, to which opts may add. A block should be freed
// through the Proxy that allocated it: p's own numbers are right in any case,
// but those of the children cannot be otherwise. A child lives as long as p. Hooks
// know it by [ChildName].
func (p *Proxy) Child(name string, opts ...Option) *Proxy {
	c := &Proxy{
		inner:   p.inner,
		counter: p.counter.Child(),
		hook:    p.hook,
		pending: p.pending,
		ctx:     p.ctx,
		name:    name,
		child:   true,
		state:   new(state),

		releases:    p.releases,
		contextFunc: p.contextFunc,
		owner:       p.owner,
	}
	for _, o := range opts {
		o.apply(c)
	}
	c.ctx = c.named(c.ctx)
	p.mu.Lock()
	defer p.mu.Unlock()
	c.closed.Store(p.closed.Load())
	p.children = append(p.children, c)
	return c
}

type childKey struct{}

// context returns what hooks are told for ctx.
func (p *Proxy) context(ctx context.Context) context.Context {
	if p.contextFunc != nil {
		ctx = p.contextFunc(ctx)
	}
	return p.named(ctx)
}

// named marks ctx with the name of the child that p is or views.
func (p *Proxy) named(ctx context.Context) context.Context {
	if p.child && p.name != "" {
		return context.WithValue(ctx, childKey{}, p.name)
	}
	return ctx
}

// ChildName returns the name of the child whose context ctx is, for hooks to tell
// what children do apart; "" if it is of none, or of one without a name.
func ChildName(ctx context.Context) string {
	name, _ := ctx.Value(childKey{}).(string)
	return name
}

// Children returns the children of p in the order in which they were made.
func (p *Proxy) Children() []*Proxy {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.children)
}

// WithContext returns a view of p that tells hooks its events with ctx, so that
// they can say in which request or span an operation was. The view counts as p
// does. Proxies below p are told ctx too: one that p wraps, also by way of wrappers
// that are a [blockalloc.Rewrapper], as those of package blockalloc are. A Proxy
// from which an allocator below p takes memory to make blocks of its own is not,
// for what that takes belongs to no one caller.
//
// A view costs an allocation on the Go heap, and some more for each wrapper on the
// way down; operations through it cost what they do through p.
func (p *Proxy) WithContext(ctx context.Context) *Proxy {
	v := *p
	v.setContext(ctx)
	return &v
}

func (p *Proxy) setContext(ctx context.Context) {
	ctx = p.context(ctx)
	p.ctx = ctx
	p.inner, _ = viewed(p.inner, func(inner *Proxy) *Proxy { return inner.WithContext(ctx) })
}

// Quiet returns a view of p that counts as p does and tells no hooks. It is what
// a hook, or the writer behind a logger, allocates from, so as not to be told of
// its own allocations. The Proxies below p that [Proxy.WithContext] reaches are
// quiet too.
func (p *Proxy) Quiet() *Proxy {
	v := *p
	v.hook, v.pending, v.releases = nil, &nothingPending, nil
	v.inner, _ = viewed(p.inner, (*Proxy).Quiet)
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

// Close ends allocation through p, its views and its children: calls of Allocate
// and Reallocate that begin after it fail with blockalloc.ErrClosed. Blocks can
// still be freed. If any are live, Close returns an error that wraps [ErrLive] with
// their number and size; it can be called again to see whether that has changed.
// The inner allocator stays open.
func (p *Proxy) Close() error {
	p.close()
	if s := p.Stats(); s.LiveBlocks > 0 {
		return fmt.Errorf("alloctrace: Close of %s: %w: %d of them, %d bytes in all: free them first", p.text(), ErrLive, s.LiveBlocks, s.LiveBytes)
	}
	return nil
}

func (p *Proxy) close() {
	p.mu.Lock()
	p.closed.Store(true)
	p.mu.Unlock()
	for _, c := range p.Children() {
		c.close()
	}
}
