package hooks

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// A liveTable has something of each of some live blocks, by address. To ask for one
// that is not there costs a load mostly. It may be used by several goroutines at once.
//
// Memory ordering: a block is in the filter before its allocation is told to be over,
// and whoever frees it has been told of it, so that it finds it there.
type liveTable[T any] struct {
	// How many blocks have addresses of one hash.
	filter [1 << filterBits]atomic.Int32
	shards [liveShards]liveShard[T]
}

const (
	liveShards = 64
	filterBits = 12
	lately     = 16
)

// A liveShard has the blocks of some addresses.
type liveShard[T any] struct {
	mu   sync.Mutex
	live map[uintptr]live[T]
	// The blocks that were released last are kept, for a release that is taken back. A
	// Proxy tells of a release before it is tried, and of its failure after that.
	released [lately]struct {
		addr uintptr
		live[T]
	}
	next int
	_    [64]byte
}

type live[T any] struct {
	size uintptr
	of   T
}

func hashOf(addr uintptr) uint64 { return uint64(addr) * 0x9e3779b97f4a7c15 }

func filterOf(addr uintptr) uint64 { return hashOf(addr) >> (64 - filterBits) }

func (t *liveTable[T]) shard(addr uintptr) *liveShard[T] {
	return &t.shards[hashOf(addr)>>32%liveShards]
}

// mayHave reports whether there may be a block at addr.
func (t *liveTable[T]) mayHave(addr uintptr) bool { return t.filter[filterOf(addr)].Load() > 0 }

// add takes in a block, instead of what is at its address.
func (t *liveTable[T]) add(addr, size uintptr, of T) {
	s := t.shard(addr)
	s.mu.Lock()
	t.addTo(s, addr, live[T]{size, of})
	s.mu.Unlock()
}

func (t *liveTable[T]) addTo(s *liveShard[T], addr uintptr, l live[T]) {
	if s.live == nil {
		s.live = make(map[uintptr]live[T])
	}
	if _, there := s.live[addr]; !there {
		t.filter[filterOf(addr)].Add(1)
	}
	s.live[addr] = l
}

// release takes out the block at addr, if that is its size, and reports whether it was
// there.
func (t *liveTable[T]) release(addr, size uintptr) (of T, was bool) {
	s := t.shard(addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	l, there := s.live[addr]
	if !there || l.size != size {
		return of, false
	}
	delete(s.live, addr)
	t.filter[filterOf(addr)].Add(-1)
	s.released[s.next].addr, s.released[s.next].live = addr, l
	s.next = (s.next + 1) % len(s.released)
	return l.of, true
}

// failed takes in again a block that was released lately, and reports whether there was
// one: not if err says that it was none of the allocator's, or if there is one at
// its address now, for then this is the failure of something else.
func (t *liveTable[T]) failed(addr, size uintptr, err error) (of T, was bool) {
	if addr == 0 || errors.Is(err, blockalloc.ErrDoubleFree) || errors.Is(err, blockalloc.ErrNotOwned) {
		return of, false
	}
	s := t.shard(addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, there := s.live[addr]; there {
		return of, false
	}
	for i := range s.released {
		if r := &s.released[i]; r.addr == addr && r.size == size {
			of = r.of
			t.addTo(s, addr, r.live)
			r.addr, r.live = 0, live[T]{}
			return of, true
		}
	}
	return of, false
}

// each calls f with all blocks, while others cannot use some of the addresses.
func (t *liveTable[T]) each(f func(addr, size uintptr, of T)) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for addr, l := range s.live {
			f(addr, l.size, l.of)
		}
		s.mu.Unlock()
	}
}
