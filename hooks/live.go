package hooks

import (
	"errors"
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"

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
	live slots[T]
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
	if s.live.put(addr, l) {
		t.filter[filterOf(addr)].Add(1)
	}
}

// release takes out the block at addr, if that is its size, and reports whether it was
// there.
func (t *liveTable[T]) release(addr, size uintptr) (of T, was bool) {
	s := t.shard(addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	i, there := s.live.find(addr)
	if !there || s.live.at[i].size != size {
		return of, false
	}
	l := s.live.at[i].live
	s.live.remove(i)
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
	if _, there := s.live.find(addr); there {
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
		for i := range s.live.at {
			if l := &s.live.at[i]; l.key != 0 {
				f(^l.key, l.size, l.of)
			}
		}
		s.mu.Unlock()
	}
}

// bytes returns what t holds on the Go heap beside itself.
func (t *liveTable[T]) bytes() (sum int64) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		n := len(s.live.at)
		s.mu.Unlock()
		sum += grantedPointers(uintptr(n) * unsafe.Sizeof(slot[T]{}))
	}
	return sum
}

// slots are blocks by address: a table that is at most three quarters full, in which a block is
// at the place that its hash says, or after it without a gap. Unlike a map, what it
// takes is known, and blocks that come and go do not make it grow.
type slots[T any] struct {
	at   []slot[T] // a power of two, or none
	used int
}

type slot[T any] struct {
	key uintptr // the complement of the address, where no block is; 0 if the slot is free
	live[T]
}

// home returns where the search for a key begins.
func (s *slots[T]) home(key uintptr) int {
	return int(hashOf(key) >> (64 - bits.TrailingZeros(uint(len(s.at)))))
}

// search returns the place of a key, or of the free slot that ends the search.
func (s *slots[T]) search(key uintptr) int {
	i := s.home(key)
	for s.at[i].key != key && s.at[i].key != 0 {
		i = (i + 1) & (len(s.at) - 1)
	}
	return i
}

// find returns the place of the block at addr, and whether there is one.
func (s *slots[T]) find(addr uintptr) (i int, there bool) {
	if s.used == 0 {
		return 0, false
	}
	i = s.search(^addr)
	return i, s.at[i].key != 0
}

// put takes in a block, instead of what is at its address, and reports whether nothing was.
func (s *slots[T]) put(addr uintptr, l live[T]) (added bool) {
	if 4*(s.used+1) > 3*len(s.at) {
		old := s.at
		s.at = make([]slot[T], max(8, 2*len(old)))
		for i := range old {
			if old[i].key != 0 {
				s.at[s.search(old[i].key)] = old[i]
			}
		}
	}
	i := s.search(^addr)
	if added = s.at[i].key == 0; added {
		s.used++
	}
	s.at[i] = slot[T]{^addr, l}
	return added
}

// remove takes out the block at place i, and moves those up that would not be found then.
func (s *slots[T]) remove(i int) {
	mask := len(s.at) - 1
	for j := (i + 1) & mask; s.at[j].key != 0; j = (j + 1) & mask {
		if (j-s.home(s.at[j].key))&mask >= (j-i)&mask {
			s.at[i] = s.at[j]
			i = j
		}
	}
	s.at[i] = slot[T]{}
	s.used--
}
