package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// A room wakes those who wait until there may be room for a page: memory was freed, or a page is no longer pinned. A
// signal costs a load while nobody waits.
type room struct {
	waiting atomic.Int64
	mu      sync.Mutex
	changed chan struct{} // closed at the next signal; nil if nobody has asked since the last
}

// enter returns what the next signal closes. Whoever looks for room after that misses no change. Call leave once.
func (r *room) enter() <-chan struct{} {
	r.waiting.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed == nil {
		r.changed = make(chan struct{})
	}
	return r.changed
}

func (r *room) leave() { r.waiting.Add(-1) }

func (r *room) signal() {
	if r.waiting.Load() == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.changed != nil {
		close(r.changed)
		r.changed = nil
	}
}

// withRoom calls do until it does not fail at the limit, and evicts a page each time. While none can be evicted, because
// all are pinned, it waits. It fails if there is no page that could ever be evicted, or ctx is done. Nobody calls it who
// holds memory: to wait while one holds what others wait for can deadlock.
func (s *session) withRoom(do func() error) error {
	for {
		err := do()
		if !errors.Is(err, blockalloc.ErrLimit) {
			return err
		}
		if evicted, failed := s.evict(); failed != nil {
			return failed
		} else if evicted {
			continue
		}
		if done, err := s.wait(do); done {
			return err
		}
	}
}

// wait waits until there may be room. It is done if do has been, or will never be.
func (s *session) wait(do func() error) (done bool, err error) {
	changed := s.room.enter()
	defer s.room.leave()
	if evicted, failed := s.evict(); evicted || failed != nil {
		return failed != nil, failed
	}
	if err := do(); !errors.Is(err, blockalloc.ErrLimit) || s.resident.Load() == 0 {
		return true, err
	}
	select {
	case <-changed:
		return false, nil
	case <-s.ctx.Done():
		return true, fmt.Errorf("all pages in memory are pinned: %w", context.Cause(s.ctx))
	}
}

// evict takes the page of one frame out of memory. It reports whether there was one that nobody uses.
func (s *session) evict() (bool, error) {
	var failed error
	first := s.next.Add(1)
	for i := range s.shards {
		f, err := s.shards[(int(first)+i)%len(s.shards)].victim(s.file)
		if f != nil {
			return true, s.free(f)
		}
		failed = errors.Join(failed, err)
	}
	return false, failed
}

// free gives the memory of a frame back that nobody finds any more.
func (s *session) free(f *frame) error {
	err := s.mem.Free(f.block)
	s.resident.Add(-1)
	s.room.signal()
	return err
}
