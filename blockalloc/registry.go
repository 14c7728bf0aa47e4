package blockalloc

import (
	"fmt"
	"sync"
)

// registry knows the live blocks of an allocator whose memory cannot show it. So a
// foreign or second free is an error and not a corruption. V is what the allocator
// keeps with each block. The zero registry is ready.
//
// Blocks are spread by address over shards with a lock each, so that goroutines rarely
// meet. An operation costs about a tenth of the system call, or of the clearing of
// fresh memory, that goes with it.
type registry[V any] struct {
	shards [16]registryShard[V]
}

type registryShard[V any] struct {
	mu    sync.Mutex
	live  map[uintptr]registered[V]
	freed [64]uintptr // the addresses freed last, a ring: it distinguishes a second free from a foreign one
	next  int
	_     [64]byte // keeps the locks of neighbouring shards off one cache line
}

type registered[V any] struct {
	size  uintptr
	value V
}

func (r *registry[V]) shard(addr uintptr) *registryShard[V] {
	// Fibonacci hashing: the low bits of aligned addresses are zeros.
	h := uint64(addr) * 0x9e3779b97f4a7c15
	return &r.shards[h>>60]
}

// add makes b live. Its address cannot be live already, because memory is released only
// after take.
func (r *registry[V]) add(b Block, v V) {
	s := r.shard(b.Addr())
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live == nil {
		s.live = make(map[uintptr]registered[V])
	}
	s.live[b.Addr()] = registered[V]{b.size, v}
}

// take ends b's life. If it returns nil, only the caller may release b's memory, or
// call add to undo.
func (r *registry[V]) take(b Block) (V, error) {
	s := r.shard(b.Addr())
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.check(b); err != nil {
		var none V
		return none, err
	}
	v := s.live[b.Addr()].value
	delete(s.live, b.Addr())
	s.freed[s.next] = b.Addr()
	s.next = (s.next + 1) % len(s.freed)
	return v, nil
}

// check returns nil if b is live.
func (r *registry[V]) check(b Block) error {
	s := r.shard(b.Addr())
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.check(b)
}

func (s *registryShard[V]) check(b Block) error {
	e, ok := s.live[b.Addr()]
	switch {
	case ok && e.size == b.size:
		return nil
	case ok:
		return fmt.Errorf("%w: the block at this address has %d B: free the Block that was allocated", ErrNotOwned, e.size)
	}
	for _, a := range s.freed {
		if a == b.Addr() {
			return fmt.Errorf("%w: free a block once", ErrDoubleFree)
		}
	}
	return fmt.Errorf("%w: free a block with the allocator it came from", ErrNotOwned)
}
