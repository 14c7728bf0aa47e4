package blockalloc

import (
	"fmt"
	"sync"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/hidden"
	"github.com/alloctrace/alloctrace/internal/spans"
)

// registry knows the live blocks of an allocator whose memory cannot show it. So a
// foreign or second free is an error and not a corruption. V is what the allocator
// keeps with each block. The zero registry is ready.
//
// Blocks are spread over shards with a lock each, so that goroutines rarely meet. An operation costs
// about a tenth of the system call, or of the clearing of fresh memory, that goes with it.
type registry[V any] struct {
	levels spans.Levels // of the blocks that there are or were
	shards [16]registryShard[V]
}

type registryShard[V any] struct {
	mu    sync.Mutex
	live  map[uint64]registered[V] // by spans.Key
	freed [64]hidden.Addr          // the addresses freed last, a ring: it distinguishes a second free from a foreign one
	next  int
	_     [64]byte // keeps the locks of neighbouring shards off one cache line
}

type registered[V any] struct {
	block hiddenBlock
	value V
}

// A hiddenBlock is a Block in a table that knows it and does not hold it: see package hidden.
type hiddenBlock struct {
	addr                   hidden.Addr
	size, requested, align uintptr
}

func hide(b Block) hiddenBlock { return hiddenBlock{hidden.Of(b.ptr), b.size, b.requested, b.align} }

func (h hiddenBlock) block() Block { return Block{h.addr.Pointer(), h.size, h.requested, h.align} }

func (b Block) key() uint64 { return spans.Key(b.Addr(), b.size) }

func (r *registry[V]) shard(key uint64) *registryShard[V] {
	// Fibonacci hashing: the low bits of aligned addresses are zeros.
	return &r.shards[key*0x9e3779b97f4a7c15>>60]
}

// add makes b live. None of its memory can be live already, because memory is released only
// after take.
func (r *registry[V]) add(b Block, v V) {
	r.levels.Add(b.size)
	s := r.shard(b.key())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live == nil {
		s.live = make(map[uint64]registered[V])
	}
	s.live[b.key()] = registered[V]{hide(b), v}
}

// resized replaces a live block by n, which has its address and its size.
func (r *registry[V]) resized(n Block) {
	s := r.shard(n.key())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.live[n.key()] = registered[V]{hide(n), s.live[n.key()].value}
}

// take ends b's life, and returns the block as it was added. If the error is nil, only the caller may
// release its memory, or call add to undo.
func (r *registry[V]) take(b Block) (Block, error) { return r.look(b, true) }

// check returns the live block that b is, as it was added.
func (r *registry[V]) check(b Block) (Block, error) { return r.look(b, false) }

func (r *registry[V]) owns(b Block) bool {
	_, err := r.check(b)
	return err == nil
}

// look is check, or take.
func (r *registry[V]) look(b Block, take bool) (Block, error) {
	if b.requested != 0 && b.size != 0 {
		if live, ok := r.shard(b.key()).look(b.key(), b, take); ok && b.Is(live) {
			return live, nil
		}
	}
	for key := range r.levels.At(b.Addr()) { // of FromRaw, or not live
		live, ok := r.shard(key).look(key, b, take)
		switch {
		case ok && b.Is(live):
			return live, nil
		case ok:
			return b, fmt.Errorf("%w: the block at this address has %d B: free the Block that was allocated", ErrNotOwned, live.size)
		}
	}
	for i := range r.shards {
		if r.shards[i].hasFreed(b.Addr()) {
			return b, fmt.Errorf("%w: free a block once", ErrDoubleFree)
		}
	}
	return b, fmt.Errorf("%w: free a block with the allocator it came from", ErrNotOwned)
}

// find returns the live block that holds the byte at p.
func (r *registry[V]) find(p unsafe.Pointer) (Block, bool) {
	for key := range r.levels.Around(uintptr(p)) {
		if b, ok := r.shard(key).load(key); ok && uintptr(p)-b.Addr() < b.size {
			return b, true
		}
	}
	return Block{}, false
}

func (s *registryShard[V]) load(key uint64) (Block, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.live[key]
	if !ok {
		return Block{}, false
	}
	return e.block.block(), true
}

// look returns the live block of a key, if it begins where b does. If b is that block and take is set, it ends the block's life.
func (s *registryShard[V]) look(key uint64, b Block, take bool) (Block, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e, ok := s.live[key]
	if !ok || e.block.addr != hidden.Of(b.ptr) {
		return Block{}, false
	}
	live := e.block.block()
	if take && b.Is(live) {
		delete(s.live, key)
		s.freed[s.next] = e.block.addr
		s.next = (s.next + 1) % len(s.freed)
	}
	return live, true
}

func (s *registryShard[V]) hasFreed(addr uintptr) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, a := range s.freed {
		if a == hidden.OfAddr(addr) {
			return true
		}
	}
	return false
}
