package hooks

import (
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/goroutine"
)

// A liveTable has something of each of some live blocks, by address, size, and the Proxy that
// allocated it: where one Proxy takes memory from another, both can have a block at an address,
// and of the same size too. To ask for one that is not there costs a load mostly. It may be
// used by several goroutines at once.
//
// A release is delivered before it is tried, and the block is kept until the end of it: by
// ended it is forgotten, by failed it is live again. Both are called by the goroutine that
// released.
//
// Memory ordering: a block is in the filter before its allocation is delivered, and who
// frees it does so after that, and finds it there.
type liveTable[T any] struct {
	// How many blocks that are live, and releases under way, have addresses of one hash.
	filter [1 << filterBits]atomic.Int32
	shards [liveShards]liveShard[T]
}

const (
	liveShards = 64
	filterBits = 12

	// keptReleases is how many releases a shard keeps of those whose end nobody delivers.
	keptReleases = 16
)

// A liveShard has the blocks of some addresses.
type liveShard[T any] struct {
	mu        sync.Mutex
	live      slots[T]
	releasing []releasing[T] // in the order in which they began
	kept      int            // of them are of no Proxy
	_         [64]byte
}

// live is what is known of a block beside its address.
type live[T any] struct {
	size  uintptr
	proxy uint32 // a number of its own; 0 for events that were not delivered by a Proxy
	align uint8  // its binary logarithm
	of    T
}

// A release is under way: of a block, if one was known, or another one of a block that is
// being released, such as a second free.
type releasing[T any] struct {
	addr      uintptr
	goroutine uintptr
	by        uint32 // the Proxy that releases, which need not be the one that allocated
	known     bool
	live[T]
}

func (r *releasing[T]) is(addr, size uintptr, by uint32, goroutine uintptr) bool {
	return r.addr == addr && r.size == size && r.by == by && r.goroutine == goroutine
}

func hashOf(addr uintptr) uint64 { return uint64(addr) * 0x9e3779b97f4a7c15 }

func filterOf(addr uintptr) uint64 { return hashOf(addr) >> (64 - filterBits) }

func (t *liveTable[T]) shard(addr uintptr) *liveShard[T] {
	return &t.shards[hashOf(addr)>>32%liveShards]
}

// mayContain reports whether there may be a block at addr, or a release of one.
func (t *liveTable[T]) mayContain(addr uintptr) bool { return t.filter[filterOf(addr)].Load() > 0 }

// add takes in a block, instead of what the same Proxy has at its address with its size, which
// it returns: the release of that was not delivered.
func (t *liveTable[T]) add(addr, size, align uintptr, proxy uint32, of T) (was T, ok bool) {
	s := t.shard(addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	if proxy == 0 && s.kept > 0 { // what has an address that is used again was released
		for i := len(s.releasing) - 1; i >= 0; i-- {
			if r := &s.releasing[i]; r.addr == addr && r.size == size && r.by == 0 {
				t.finish(s, i)
			}
		}
	}
	old, added := s.live.put(addr, live[T]{size, proxy, uint8(bits.TrailingZeros64(uint64(align))), of})
	if added {
		t.filter[filterOf(addr)].Add(1)
	}
	return old.of, !added
}

// release takes out the block that a Proxy releases, and reports whether it was there, and
// whether the end of the release must be delivered: by failed or ended. It is the block that the
// Proxy has allocated, or else the one that another has allocated last.
func (t *liveTable[T]) release(addr, size uintptr, by uint32) (of T, ok, waits bool) {
	r := releasing[T]{addr: addr, goroutine: goroutine.ID(), by: by}
	r.size = size
	s := t.shard(addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	if i, ok := s.live.find(addr, size, by); ok {
		r.known, r.live = true, s.live.at[i].live
		s.live.remove(i)
	} else if !slices.ContainsFunc(s.releasing, func(other releasing[T]) bool { return other.is(addr, size, by, r.goroutine) }) {
		return of, false, false
	} else {
		t.filter[filterOf(addr)].Add(1)
	}
	s.releasing = append(s.releasing, r)
	if by == 0 {
		if s.kept++; s.kept > keptReleases {
			t.finish(s, slices.IndexFunc(s.releasing, func(r releasing[T]) bool { return r.by == 0 }))
		}
	}
	return r.of, r.known, true
}

// finish forgets release i.
func (t *liveTable[T]) finish(s *liveShard[T], i int) {
	r := &s.releasing[i]
	t.filter[filterOf(r.addr)].Add(-1)
	if r.by == 0 {
		s.kept--
	}
	last := len(s.releasing) - 1
	if i < last {
		copy(s.releasing[i:], s.releasing[i+1:])
	}
	s.releasing[last] = releasing[T]{}
	if s.releasing = s.releasing[:last]; last == 0 && cap(s.releasing) > keptReleases {
		s.releasing = nil
	}
}

// ended forgets a release that has succeeded, and reports whether it was kept.
func (t *liveTable[T]) ended(addr, size uintptr, by uint32) bool {
	me := goroutine.ID()
	s := t.shard(addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	found := -1
	for i := range s.releasing {
		if r := &s.releasing[i]; r.is(addr, size, by, me) {
			if found = i; r.known {
				break
			}
		}
	}
	if found < 0 {
		return false
	}
	t.finish(s, found)
	return true
}

// failed takes in again a block whose release has failed, and reports whether there was one,
// and whether a release was kept. Where goroutines cannot be told apart, another one of the
// same block, such as a second free, is the one that fails first; and what has been released
// last, for it is what was there last.
func (t *liveTable[T]) failed(addr, size uintptr, by uint32) (of T, ok, kept bool) {
	me := goroutine.ID()
	s := t.shard(addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	found := -1
	for i := len(s.releasing) - 1; i >= 0; i-- {
		if r := &s.releasing[i]; r.is(addr, size, by, me) {
			if !r.known {
				found = i
				break
			}
			found = max(found, i)
		}
	}
	if found < 0 {
		return of, false, false
	}
	if r := s.releasing[found]; r.known && !s.live.has(addr, size, r.proxy) {
		of, ok = r.of, true
		s.live.put(addr, r.live)
		t.filter[filterOf(addr)].Add(1)
	}
	t.finish(s, found)
	return of, ok, true
}

// pending returns how many releases are kept.
func (t *liveTable[T]) pending() (sum int64) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		sum += int64(len(s.releasing))
		s.mu.Unlock()
	}
	return sum
}

// each calls f with all blocks, while others cannot use some of the addresses.
func (t *liveTable[T]) each(f func(addr uintptr, l *live[T])) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for i := range s.live.at {
			if l := &s.live.at[i]; l.key != 0 {
				f(^l.key, &l.live)
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
		n, m := len(s.live.at), cap(s.releasing)
		s.mu.Unlock()
		sum += int64(n)*int64(unsafe.Sizeof(slot[T]{})) + int64(m)*int64(unsafe.Sizeof(releasing[T]{}))
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

// find returns the place of the block at addr of this size that proxy has allocated, or else of
// the one that came last, and whether there is one.
func (s *slots[T]) find(addr, size uintptr, proxy uint32) (place int, ok bool) {
	if s.used == 0 {
		return 0, false
	}
	key := ^addr
	for i := s.home(key); s.at[i].key != 0; i = (i + 1) & (len(s.at) - 1) {
		if b := &s.at[i]; b.key == key && b.size == size {
			if place, ok = i, true; b.proxy == proxy {
				break
			}
		}
	}
	return place, ok
}

// has reports whether there is a block of this Proxy.
func (s *slots[T]) has(addr, size uintptr, proxy uint32) bool {
	i, ok := s.find(addr, size, proxy)
	return ok && s.at[i].proxy == proxy
}

// put takes in a block, instead of what its Proxy has at its address with its size, which it
// returns, and reports whether that was nothing. Blocks of one address are in the order in which
// they came.
func (s *slots[T]) put(addr uintptr, l live[T]) (was live[T], added bool) {
	if 4*(s.used+1) > 3*len(s.at) {
		old := s.at
		s.at = make([]slot[T], max(8, 2*len(old)))
		first := max(0, slices.IndexFunc(old, func(b slot[T]) bool { return b.key == 0 }))
		for i := range old { // from a free slot on, so that none is before those that came earlier
			if b := &old[(first+i)&(len(old)-1)]; b.key != 0 {
				s.at[s.free(b.key)] = *b
			}
		}
	}
	if i, ok := s.find(addr, l.size, l.proxy); ok && s.at[i].proxy == l.proxy {
		was, s.at[i].live = s.at[i].live, l
		return was, false
	}
	s.at[s.free(^addr)] = slot[T]{^addr, l}
	s.used++
	return was, true
}

// free returns the free slot that ends the search for a key.
func (s *slots[T]) free(key uintptr) int {
	i := s.home(key)
	for s.at[i].key != 0 {
		i = (i + 1) & (len(s.at) - 1)
	}
	return i
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
