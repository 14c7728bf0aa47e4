package cmem

import (
	"fmt"
	"sync"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/spans"
)

// registry knows the live blocks, so that C is never given a pointer that is none of them. The zero registry is ready.
type registry struct {
	levels spans.Levels // of the sizes that there are or were
	shards [16]shard
}

type shard struct {
	mu    sync.Mutex
	live  map[uint64]entry // by spans.Key
	freed [64]uintptr      // the addresses freed last, a ring: it distinguishes a second free from a foreign one
	next  int
	_     [64]byte // keeps the locks of neighbouring shards off one cache line
}

type entry struct {
	block blockalloc.Block
	isC   bool // C frees its memory, or has not given it up yet
}

func (r *registry) shard(key uint64) *shard {
	// Fibonacci hashing: the low bits of aligned addresses are zeros.
	return &r.shards[key*0x9e3779b97f4a7c15>>60]
}

// add makes b live. None of its memory can be live already: C is given it after take.
func (r *registry) add(b blockalloc.Block) { r.put(entry{block: b}) }

func (r *registry) put(e entry) {
	r.levels.Add(e.block.Size())
	key := spans.Key(e.block.Addr(), e.block.Size())
	s := r.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live == nil {
		s.live = make(map[uint64]entry)
	}
	s.live[key] = e
}

// take ends b's life, and returns the block as it was added, and whether its memory is C's. If the error is nil, only the
// caller may give it back, or call add to undo.
func (r *registry) take(b blockalloc.Block) (live blockalloc.Block, isC bool, err error) {
	err = r.at(b, func(s *shard, key uint64, e entry) {
		live, isC = e.block, e.isC
		delete(s.live, key)
		s.freed[s.next] = b.Addr()
		s.next = (s.next + 1) % len(s.freed)
	})
	return live, isC, err
}

// check returns the live block that b is, as it was added.
func (r *registry) check(b blockalloc.Block) (live blockalloc.Block, err error) {
	err = r.at(b, func(_ *shard, _ uint64, e entry) { live = e.block })
	return live, err
}

// setC says whether the memory of b is C's. It returns the block as it was added.
func (r *registry) setC(b blockalloc.Block, isC bool) (live blockalloc.Block, err error) {
	err = r.at(b, func(s *shard, key uint64, e entry) {
		live = e.block
		s.live[key] = entry{live, isC}
	})
	return live, err
}

// at calls found with the entry of b and its shard locked.
func (r *registry) at(b blockalloc.Block, found func(*shard, uint64, entry)) error {
	if !b.IsRaw() { // it is of its own size
		if ok, _ := r.visit(spans.Key(b.Addr(), b.Size()), b, found); ok {
			return nil
		}
	}
	for key := range r.levels.At(b.Addr()) {
		switch ok, other := r.visit(key, b, found); {
		case ok:
			return nil
		case !other.IsZero():
			return fmt.Errorf("%w: the block at this address has %d B: free the Block that was allocated", blockalloc.ErrNotOwned, other.Size())
		}
	}
	for i := range r.shards {
		if r.shards[i].hasFreed(b.Addr()) {
			return fmt.Errorf("%w: free a block once", blockalloc.ErrDoubleFree)
		}
	}
	return fmt.Errorf("%w: free a block with the allocator it came from", blockalloc.ErrNotOwned)
}

// visit calls found if b is the block with that key. Otherwise it returns the block that begins where b does.
func (r *registry) visit(key uint64, b blockalloc.Block, found func(*shard, uint64, entry)) (ok bool, other blockalloc.Block) {
	s := r.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.live[key]
	switch {
	case !ok || e.block.Pointer() != b.Pointer():
		return false, other
	case !b.Is(e.block):
		return false, e.block
	}
	found(s, key, e)
	return true, other
}

// find returns the live block that holds the byte at p.
func (r *registry) find(p unsafe.Pointer) (blockalloc.Block, bool) {
	for key := range r.levels.Around(uintptr(p)) {
		if b := r.shard(key).load(key); !b.IsZero() && uintptr(p)-b.Addr() < b.Size() {
			return b, true
		}
	}
	return blockalloc.Block{}, false
}

func (s *shard) load(key uint64) blockalloc.Block {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live[key].block
}

func (s *shard) hasFreed(addr uintptr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.freed {
		if a == addr {
			return true
		}
	}
	return false
}
