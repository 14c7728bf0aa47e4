package hooks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/random"
)

// Leaks is a Hook that knows who holds what: the blocks that are live, when and by
// which calls they were allocated. It must be told of blocks from their allocation on,
// so that it belongs into the options of the Proxy. It may be used by several
// goroutines at once.
//
// It remembers each block, or with a rate one in so many bytes, of which it makes
// estimates that are right on average. A block that is not remembered costs some loads;
// one that is costs its stack, by [runtime.Callers], a lock that few share, and some
// hundred bytes on the Go heap until it is freed.
type Leaks struct {
	owner   func(context.Context) string
	sampler sampler
	start   time.Time
	serial  atomic.Uint64
	stacks  *stacks
	shards  [leakShards]leakShard
	// How many remembered blocks have addresses of one hash, so that a free of one that
	// is not remembered is known as such by a load.
	filter [1 << filterBits]atomic.Int32
}

var _ alloctrace.PartsHook = (*Leaks)(nil)

const (
	leakShards = 64
	filterBits = 12
	lately     = 16
)

// leakShard has the blocks of some addresses.
type leakShard struct {
	mu   sync.Mutex
	live map[uintptr]liveBlock
	// The blocks that were released last are kept, for a release that is taken back. A
	// Proxy tells of a release before it is tried, and of its failure after that.
	released [lately]liveBlock
	next     int
	_        [64]byte
}

type liveBlock struct {
	addr, size, align uintptr
	since             time.Duration // from Leaks.start to its allocation
	site
	serial uint64 // by the order in which blocks were remembered, which clocks may be too coarse to tell
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

// WithOwner has f say whose a block is, by the context that the hook is told: such as
// the region of [alloctrace.Proxy.WithContext], or the request. Otherwise it is that of
// the child Proxy that allocated it, by [alloctrace.ChildName]. It is called for each
// block that is remembered, concurrently.
func WithOwner(f func(ctx context.Context) string) LeaksOption {
	return leaksOptionFunc(func(l *Leaks) { l.owner = f })
}

// NewLeaks returns a Leaks that remembers a block for each rate bytes allocated, on
// average; all blocks if rate is 1.
func NewLeaks(rate int, opts ...LeaksOption) *Leaks {
	if rate < 1 {
		panic(fmt.Sprintf("hooks: NewLeaks(%d): use 1 for every block, or some hundred thousand bytes", rate))
	}
	l := &Leaks{sampler: newSampler(int64(rate)), start: time.Now(), owner: alloctrace.ChildName, stacks: newStacks()}
	for _, o := range opts {
		o.apply(l)
	}
	return l
}

// Observe remembers and forgets blocks.
func (l *Leaks) Observe(ctx context.Context, e alloctrace.Event) {
	if e.Kind.Failed() {
		l.failed(e.Addr, e.Size, e.Err)
	} else {
		l.ObserveParts(ctx, e.Kind, e.Addr, e.Size, e.Align)
	}
}

// ObserveParts is Observe for an event without an Err.
func (l *Leaks) ObserveParts(ctx context.Context, k alloctrace.Kind, addr, size, align uintptr) {
	switch k {
	case alloctrace.Allocated, alloctrace.Reallocated:
		if drawn := random.Uint32(); drawn <= l.sampler.bound(size) {
			l.acquire(ctx, addr, size, align, drawn)
		}
	case alloctrace.Freeing, alloctrace.Reallocating:
		if l.filter[filterOf(addr)].Load() > 0 {
			l.release(addr, size)
		}
	}
}

func hashOf(addr uintptr) uint64 { return uint64(addr) * 0x9e3779b97f4a7c15 }

func filterOf(addr uintptr) uint64 { return hashOf(addr) >> (64 - filterBits) }

func (l *Leaks) shard(addr uintptr) *leakShard { return &l.shards[hashOf(addr)>>32%leakShards] }

// acquire remembers a block if it is chosen by the number that was drawn.
func (l *Leaks) acquire(ctx context.Context, addr, size, align uintptr, drawn uint32) {
	if !l.sampler.chosen(drawn, size) {
		return
	}
	b := liveBlock{addr: addr, size: size, align: align, since: time.Since(l.start)}
	b.stack, b.owner = l.stacks.caller(), l.owner(ctx)
	l.remember(b)
}

// failed takes a release back. That of a block that was not live there is none.
func (l *Leaks) failed(addr, size uintptr, err error) {
	if addr != 0 && !errors.Is(err, blockalloc.ErrDoubleFree) && !errors.Is(err, blockalloc.ErrNotOwned) {
		l.takeBack(addr, size)
	}
}

func (l *Leaks) remember(b liveBlock) {
	b.serial = l.serial.Add(1)
	s := l.shard(b.addr)
	s.mu.Lock()
	s.add(l, b)
	s.mu.Unlock()
}

func (s *leakShard) add(l *Leaks, b liveBlock) {
	if s.live == nil {
		s.live = make(map[uintptr]liveBlock)
	}
	if _, there := s.live[b.addr]; !there {
		l.filter[filterOf(b.addr)].Add(1)
	}
	s.live[b.addr] = b
}

// release forgets the block at addr, if that is its size.
func (l *Leaks) release(addr, size uintptr) {
	s := l.shard(addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	b, there := s.live[addr]
	if !there || b.size != size {
		return
	}
	delete(s.live, addr)
	l.filter[filterOf(addr)].Add(-1)
	s.released[s.next] = b
	s.next = (s.next + 1) % len(s.released)
}

// takeBack remembers a block again that was released lately, if there is none at its
// address now: then this is the failure of something else.
func (l *Leaks) takeBack(addr, size uintptr) {
	s := l.shard(addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.live[addr]; there {
		return
	}
	for i := range s.released {
		if b := &s.released[i]; b.addr == addr && b.size == size {
			s.add(l, *b)
			*b = liveBlock{}
			return
		}
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
	for i := range l.shards {
		s := &l.shards[i]
		s.mu.Lock()
		for _, b := range s.live {
			list = append(list, b)
		}
		s.mu.Unlock()
	}
	slices.SortFunc(list, func(a, b liveBlock) int { return cmp.Compare(a.serial, b.serial) })
	return list
}
