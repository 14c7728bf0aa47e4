package hooks

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/internal/random"
)

// Leaks is a Hook that knows who holds what: the blocks that are live, when and by
// which calls they were allocated. It must be told of blocks from their allocation on,
// so that it belongs into the options of the Proxy. It may be used by several
// goroutines at once.
//
// It remembers each block, or with a rate one in so many bytes, of which it makes
// estimates that are right on average. A block that is not remembered costs some loads;
// one that is costs some 30 atomic additions for its stack, two locks that few share,
// and some hundred bytes on the Go heap that later ones use again.
type Leaks struct {
	likely  [65]atomic.Uint32 // those of sampler, for a look at them to cost a load
	sampler atomic.Pointer[sampler]
	owner   func(context.Context) string
	start   time.Time
	serial  atomic.Uint64
	stacks  *stacks
	live    liveTable[origin]
}

var _ alloctrace.Attacher = (*Leaks)(nil)

// An origin is where a block comes from.
type origin struct {
	site
	since  time.Duration // from Leaks.start to its allocation
	serial uint64        // by the order in which blocks were remembered, which clocks may be too coarse to tell
	by     *sampler      // by which it was chosen
}

// A liveBlock is a block with its origin.
type liveBlock struct {
	addr, size, align uintptr
	origin
}

// A site is who allocates: the calls, and the owner by the context.
type site struct {
	stack *stack
	owner string
}

// A LeaksOption configures [NewLeaks].
type LeaksOption interface{ apply(*Leaks) }

type leaksOptionFunc func(*Leaks)

func (f leaksOptionFunc) apply(l *Leaks) { f(l) }

// WithOwner has f say whose a block is, by the context that the hook is given: such as
// the region of [alloctrace.Proxy.WithContext], or the request. Otherwise it is that of
// the child Proxy that allocated it. It is called for each block that is remembered,
// concurrently.
func WithOwner(f func(ctx context.Context) string) LeaksOption {
	return leaksOptionFunc(func(l *Leaks) { l.owner = f })
}

// NewLeaks returns a Leaks that remembers a block for each rate bytes allocated, on
// average; all blocks if rate is 1.
func NewLeaks(rate int, opts ...LeaksOption) *Leaks {
	if rate < 1 {
		panic(fmt.Sprintf("hooks: NewLeaks(%d): use 1 for every block, or some hundred thousand bytes", rate))
	}
	l := &Leaks{start: time.Now(), stacks: newStacks()}
	l.SetRate(rate)
	for _, o := range opts {
		o.apply(l)
	}
	return l
}

// SetRate changes the rate for what is allocated from now on: 0 remembers nothing more. What was
// remembered before stays so, and is weighted as it was.
func (l *Leaks) SetRate(rate int) {
	if rate < 0 {
		panic(fmt.Sprintf("hooks: Leaks.SetRate(%d): use 0 for nothing, 1 for every block, or some hundred thousand bytes", rate))
	}
	s := newSampler(int64(rate))
	l.sampler.Store(&s)
	for i, bound := range s.likely {
		l.likely[i].Store(bound)
	}
}

// Rate returns the rate.
func (l *Leaks) Rate() int { return int(l.sampler.Load().rate) }

// Observe remembers and forgets blocks.
func (l *Leaks) Observe(ctx context.Context, e alloctrace.Event, err error) {
	p := l.part(0, "")
	p.Observe(ctx, e, err)
}

// Attach implements [alloctrace.Attacher].
func (l *Leaks) Attach(to *alloctrace.Attachment) alloctrace.Hook {
	p := l.part(to.ID, to.Child)
	p.pending = to.OnReleased(p.released)
	return p
}

func (l *Leaks) part(proxy uint32, child string) *trackedLeaks {
	return &trackedLeaks{unsafe.Pointer(&l.live.filter), unsafe.Pointer(&l.likely[1]), l, proxy, child, nil}
}

// trackedLeaks is the part of a Leaks for one Proxy.
type trackedLeaks struct {
	filter, bounds unsafe.Pointer // to live.filter and to likely[1], which saves some instructions an event
	*Leaks
	proxy   uint32
	child   string
	pending *atomic.Int64 // nil if no Proxy delivers events
}

func (l *trackedLeaks) Observe(ctx context.Context, e alloctrace.Event, _ error) {
	if e.Kind > alloctrace.Reallocated { // a release, or a failure
		if (*atomic.Int32)(unsafe.Add(l.filter, filterOf(e.Addr)*4)).Load() > 0 {
			l.release(e)
		}
	} else if drawn := random.Uint32(); drawn <= (*atomic.Uint32)(unsafe.Add(l.bounds, (sizeClass(e.Size)-1)*4)).Load() {
		l.acquire(ctx, e.Addr, e.Size, e.Align, drawn)
	}
}

// acquire remembers a block if it is chosen by the number that was drawn, which is again compared
// with the bound: the rate may have changed.
func (l *trackedLeaks) acquire(ctx context.Context, addr, size, align uintptr, drawn uint32) {
	if s := l.sampler.Load(); drawn <= s.bound(size) && s.chosen(drawn, size) {
		owner := l.child
		if l.owner != nil {
			owner = l.owner(ctx)
		}
		by := site{l.stacks.caller(), owner}
		l.live.add(addr, size, align, l.proxy, origin{by, time.Since(l.start), l.serial.Add(1), s})
	}
}

// release forgets a block, or knows it again when its release has failed.
func (l *trackedLeaks) release(e alloctrace.Event) {
	if e.Kind.Failed() {
		if _, _, kept := l.live.failed(e.Addr, e.Size, l.proxy); kept && l.pending != nil {
			l.pending.Add(-1)
		}
	} else if _, _, waits := l.live.release(e.Addr, e.Size, l.proxy); waits && l.pending != nil {
		l.pending.Add(1)
	}
}

func (l *trackedLeaks) released(addr, size uintptr) {
	if l.live.ended(addr, size, l.proxy) {
		l.pending.Add(-1)
	}
}

// Usage returns what l has done and takes. Sampled are the blocks that were remembered. Bytes
// are without the texts that the function of [WithOwner] has made.
func (l *Leaks) Usage() Usage {
	return Usage{
		Sampled: int64(l.serial.Load()),
		Bytes:   int64(unsafe.Sizeof(*l)) + l.stacks.bytes() + l.live.bytes(),
	}
}

// A LiveBlock is a block that [Leaks] remembers.
type LiveBlock struct {
	Addr, Size, Align uintptr // as in the event that told of it
	Allocated         time.Time
	Owner             string  // by the context, see WithOwner; "" if it is nobody's
	Stack             []Frame // from the function that allocated it outwards, 32 frames at most
}

// Live returns the blocks that are remembered, the oldest first.
func (l *Leaks) Live() []LiveBlock {
	all := l.all()
	list := make([]LiveBlock, len(all))
	frames := make(map[*stack][]Frame)
	for i, b := range all {
		if frames[b.stack] == nil {
			frames[b.stack] = b.stack.frames()
		}
		list[i] = LiveBlock{b.addr, b.size, b.align, l.start.Add(b.since), b.owner, frames[b.stack]}
	}
	return list
}

// all returns the blocks, the oldest first.
func (l *Leaks) all() []liveBlock {
	var list []liveBlock
	l.live.each(func(addr uintptr, b *live[origin]) {
		list = append(list, liveBlock{addr, b.size, 1 << b.align, b.of})
	})
	slices.SortFunc(list, func(a, b liveBlock) int { return cmp.Compare(a.serial, b.serial) })
	return list
}
