package heapprofile

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/goroutine"
	"github.com/alloctrace/alloctrace/internal/hidden"
)

// A liveTable has some live blocks, by address, size, and the Proxy that allocated them: where
// one Proxy takes memory from another, both can have a block at an address, and of the same size
// too. To ask for one that is not there costs a load mostly. It may be used by several goroutines
// at once.
//
// A release is delivered before it is tried, and the block is kept until the end of it: by
// ended it is forgotten, by failed it is live again. Both are called by the goroutine that
// released.
//
// Memory ordering: a block is in the filter before its allocation is delivered, and who
// frees it does so after that, and finds it there.
type liveTable struct {
	// How many blocks that are live, and releases under way, have addresses of one hash; and one
	// more if the table is complete, for releases of unknown blocks to be seen.
	filter [1 << filterBits]atomic.Int32
	shards [liveShards]liveShard

	complete atomic.Bool // it has all live blocks, but those that no Proxy has allocated

	end func(b *block) ending // called for a block that is released, if it is not nil
}

const (
	liveShards = 64
	filterBits = 12

	// keptReleases is how many releases a shard keeps of those whose end nobody delivers.
	keptReleases = 16
)

// A liveShard has the blocks of some addresses.
type liveShard struct {
	mu        sync.Mutex
	live      slots
	releasing []releasing // in the order in which they began
	kept      int         // of them are of no Proxy
	_         [64]byte
}

// A block is what is known of a live block beside its address.
type block struct {
	size        uintptr
	by          *part // that has observed the allocation
	site        *site
	since       time.Duration // from Profile.start to its allocation
	serial      uint64        // by the order in which blocks were sampled, which clocks may be too coarse to tell
	sampler     *sampler      // by which it was chosen
	align       uint8         // its binary logarithm
	allocatedOn uint16        // of the processor that allocated it; 0 if that is not known
	allocatedBy uint32        // of the number of the goroutine that allocated it; 0 if that is not known
	watched     *Watched      // nil without a Watcher
}

// weight returns how many blocks of its size b stands for.
func (b *block) weight() float64 { return b.sampler.weight(b.size) }

// A release is under way: of a block, if one was known, or of one that is not known, such as a
// second free of a block that is being released.
type releasing struct {
	addr      hidden.Addr
	goroutine uintptr
	through   *part // that has observed it, which need not be the one that allocated
	known     bool
	inner     bool // an outer Proxy, which takes memory from this one, releases the block of this one
	repeated  bool // this goroutine releases it through another part too, which says where it comes from
	block          // if it is known
	ending         // then how it ended
}

func (r *releasing) of(addr, size uintptr) bool {
	return r.addr == hidden.OfAddr(addr) && r.size == size
}

func (r *releasing) is(addr, size uintptr, through *part, goroutine uintptr) bool {
	return r.of(addr, size) && r.through == through && r.goroutine == goroutine
}

// foreign reports whether the block of a release that has succeeded was allocated through
// another Proxy or child, or through none. It takes no account of events that no Proxy
// delivers, nor of unknown blocks where views exist that are not observed.
func (r *releasing) foreign() bool {
	switch {
	case r.through.id == 0 || r.through.quiet.Load():
		return false
	case !r.known:
		return !r.inner && !r.repeated
	}
	return r.by.to != r.through.to && r.by.id != 0 && !r.by.quiet.Load()
}

func hashOf(addr uintptr) uint64 { return uint64(addr) * 0x9e3779b97f4a7c15 }

func filterOf(addr uintptr) uint64 { return hashOf(addr) >> (64 - filterBits) }

func (t *liveTable) shard(addr uintptr) *liveShard {
	return &t.shards[hashOf(addr)>>32%liveShards]
}

// mayContain reports whether there may be a block at addr, or a release of one.
func (t *liveTable) mayContain(addr uintptr) bool { return t.filter[filterOf(addr)].Load() > 0 }

// setComplete says that every block will be added. It is called before the first one.
func (t *liveTable) setComplete() {
	t.complete.Store(true)
	for i := range t.filter {
		t.filter[i].Add(1)
	}
}

// setIncomplete says that blocks will be missing from now on. It is called before the first one is.
func (t *liveTable) setIncomplete() {
	if t.complete.CompareAndSwap(true, false) {
		for i := range t.filter {
			t.filter[i].Add(-1)
		}
	}
}

// add takes in a block, instead of what the same Proxy has at its address with its size, which
// it returns: the release of that was not delivered.
func (t *liveTable) add(addr uintptr, b *block) (was block, ok bool) {
	s := t.shard(addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	if b.by.id == 0 && s.kept > 0 { // what has an address that is used again was released
		for i := len(s.releasing) - 1; i >= 0; i-- {
			if r := &s.releasing[i]; r.of(addr, b.size) && r.through.id == 0 {
				t.finish(s, i)
			}
		}
	}
	was, added := s.live.put(addr, b)
	if added {
		t.filter[filterOf(addr)].Add(1)
	}
	return was, !added
}

// release takes out the block that a Proxy releases, and reports whether it was there, and
// whether the end of the release must be delivered: by failed or ended. It is the block that the
// Proxy has allocated, or else the one that another has allocated last, unless another goroutine is
// releasing that.
func (t *liveTable) release(addr, size uintptr, through *part) (b block, ok, waits bool) {
	me := goroutine.ID()
	s := t.shard(addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.live.find(addr, size, through.id)
	if ok && len(s.releasing) > 0 && s.live.at[i].by.id != through.id && s.newer(addr, size, s.live.at[i].serial, me) {
		ok = false
	}
	var inner, repeated, related bool
	if !ok {
		inner, repeated, related = s.relate(addr, size, through.id, me)
		if !related && (through.id == 0 || !t.complete.Load()) {
			return b, false, false
		}
		t.filter[filterOf(addr)].Add(1)
	}
	s.releasing = append(s.releasing, releasing{addr: hidden.OfAddr(addr), goroutine: me, through: through, known: ok, inner: inner, repeated: repeated})
	r := &s.releasing[len(s.releasing)-1]
	r.size = size
	if ok {
		r.block = s.live.at[i].block
		if t.end != nil {
			r.ending = t.end(&r.block)
		}
		s.live.remove(i)
		b = r.block
	}
	if through.id == 0 {
		if s.kept++; s.kept > keptReleases {
			t.finish(s, slices.IndexFunc(s.releasing, func(r releasing) bool { return r.through.id == 0 }))
		}
	}
	return b, ok, true
}

// newer reports whether another goroutine is releasing a block that was allocated later than this
// one: then that is the one which is meant.
func (s *liveShard) newer(addr, size uintptr, serial uint64, goroutine uintptr) bool {
	return goroutine != 0 && slices.ContainsFunc(s.releasing, func(r releasing) bool {
		return r.of(addr, size) && r.known && r.goroutine != goroutine && r.serial > serial
	})
}

// relate says of the release of an unknown block what it has to do with others of its address and
// size that are under way, see releasing, and whether there are any.
func (s *liveShard) relate(addr, size uintptr, proxy uint32, goroutine uintptr) (inner, repeated, found bool) {
	for i := range s.releasing {
		other := &s.releasing[i]
		if !other.of(addr, size) {
			continue
		}
		found = true
		if other.goroutine == goroutine {
			outer := other.through.id != proxy
			inner = inner || outer && other.known && other.by.id == proxy
			repeated = repeated || !outer || !other.known
		}
	}
	return inner, repeated, found
}

// rival returns another release than i of the same block that is under way, and can be the one
// that succeeds in its stead: one that has the block, or one that has not. One through the same
// Proxy is preferred: one that takes memory from it can have a block there too.
func (s *liveShard) rival(i int, known bool) (found *releasing) {
	r := &s.releasing[i]
	if r.inner || r.through.id == 0 {
		return nil
	}
	for j := range s.releasing {
		other := &s.releasing[j]
		if j == i || !other.of(r.addr.Addr(), r.size) || other.known != known || other.inner || other.through.id == 0 {
			continue
		}
		if other.through.id == r.through.id {
			return other
		}
		if other.goroutine != r.goroutine || r.goroutine == 0 {
			found = other
		}
	}
	return found
}

// finish forgets release i.
func (t *liveTable) finish(s *liveShard, i int) {
	r := &s.releasing[i]
	t.filter[filterOf(r.addr.Addr())].Add(-1)
	if r.through.id == 0 {
		s.kept--
	}
	last := len(s.releasing) - 1
	if i < last {
		copy(s.releasing[i:], s.releasing[i+1:])
	}
	s.releasing[last] = releasing{}
	if s.releasing = s.releasing[:last]; last == 0 && cap(s.releasing) > keptReleases {
		s.releasing = nil
	}
}

// ended forgets a release that has succeeded, and reports whether it was kept. It returns the
// release if the table is complete and the release is foreign, and the block if it was known and
// is watched. If it was of an unknown block, and another goroutine is releasing a known one there, it was of
// that: of two that free a block at once, the second to begin can be the one to succeed.
func (t *liveTable) ended(addr, size uintptr, through *part) (foreign *releasing, freed *Watched, kept bool) {
	me := goroutine.ID()
	s := t.shard(addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	found := -1
	for i := range s.releasing {
		if r := &s.releasing[i]; r.is(addr, size, through, me) {
			if found = i; r.known {
				break
			}
		}
	}
	if found < 0 {
		return nil, nil, false
	}
	r := &s.releasing[found]
	if !r.known {
		if other := s.rival(found, true); other != nil {
			r.known, r.block, r.ending = true, other.block, other.ending
			other.known, other.repeated = false, true
		}
	}
	if t.complete.Load() && r.foreign() {
		c := *r
		foreign = &c
	}
	freed = r.watched
	t.finish(s, found)
	return foreign, freed, true
}

// failed takes in again a block whose release has failed, and reports whether there was one,
// and whether a release was kept. If it returns a block none the less, its Proxy has another one there by now. If another goroutine is releasing it too, it is that one's
// block from now on. Where goroutines cannot be told apart, another release of the same block,
// such as a second free, is the one that fails first; and what has been released last, for it is
// what was there last.
func (t *liveTable) failed(addr, size uintptr, through *part) (b block, ok, kept bool) {
	me := goroutine.ID()
	s := t.shard(addr)
	s.mu.Lock()
	defer s.mu.Unlock()
	found := -1
	for i := len(s.releasing) - 1; i >= 0; i-- {
		if r := &s.releasing[i]; r.is(addr, size, through, me) {
			if !r.known {
				found = i
				break
			}
			found = max(found, i)
		}
	}
	if found < 0 {
		return b, false, false
	}
	if r := &s.releasing[found]; r.known {
		if other := s.rival(found, false); other != nil {
			other.known, other.block, other.ending = true, r.block, r.ending
		} else if !s.live.has(addr, size, r.by.id) {
			b, ok = r.block, true
			if t.end != nil {
				b.site.unend(&b, r.ending)
			}
			s.live.put(addr, &b)
			t.filter[filterOf(addr)].Add(1)
		} else {
			b = r.block // its address is used again: it was released
		}
	}
	t.finish(s, found)
	return b, ok, true
}

// pending returns how many releases are kept.
func (t *liveTable) pending() (sum int64) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		sum += int64(len(s.releasing))
		s.mu.Unlock()
	}
	return sum
}

// each calls f with all blocks, while others cannot use some of the addresses.
func (t *liveTable) each(f func(addr uintptr, b *block)) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for i := range s.live.at {
			if l := &s.live.at[i]; l.key != 0 {
				f(^l.key, &l.block)
			}
		}
		s.mu.Unlock()
	}
}

// bytes returns what t holds on the Go heap beside itself.
func (t *liveTable) bytes() (sum int64) {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		n, m := len(s.live.at), cap(s.releasing)
		s.mu.Unlock()
		sum += int64(n)*int64(unsafe.Sizeof(slot{})) + int64(m)*int64(unsafe.Sizeof(releasing{}))
	}
	return sum
}
