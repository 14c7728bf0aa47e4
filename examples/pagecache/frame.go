package main

import (
	"sync"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/typed"
)

// A frame holds a page in memory.
type frame struct {
	page  uint32
	block blockalloc.Block

	// The lock of the shard guards these.
	pins       int  // who uses it; it is evicted at 0 alone
	referenced bool // used since the hand of the clock last came by
	dirty      bool // the file has an older generation

	// The latch guards these and the content. Whoever wants it has pinned the frame. It is held exclusively until the
	// page is read.
	latch sync.RWMutex
	err   error // why it could not be read: then nobody finds it any more
}

// bytes returns the page: a block may be larger.
func (f *frame) bytes() []byte { return f.block.Bytes()[:f.block.Requested()] }

// A shard holds the pages whose numbers have one hash.
type shard struct {
	mu      sync.Mutex
	frames  []*frame                   // by slot; nil if the slot is free
	free    []uint32                   // slots
	hand    int                        // of the clock: the next slot to look at
	slots   *typed.Map[uint32, uint32] // by page
	pending *typed.Map[uint32, uint32] // the memtable: how many writes wait for pages that are not in memory
	merging bool                       // somebody empties the memtable
	room    *room
	stats   stats
	_       [64]byte // keeps the locks of neighbouring shards off one cache line
}

// stats are counts of what a cache has done.
type stats struct {
	Hits       int64 `json:"hits"`
	Misses     int64 `json:"misses"`
	Buffered   int64 `json:"buffered"` // writes to pages that were not in memory
	Merged     int64 `json:"merged"`   // such writes that came to their pages
	Evictions  int64 `json:"evictions"`
	WriteBacks int64 `json:"write_backs"`
}

func (s *stats) add(o stats) {
	s.Hits += o.Hits
	s.Misses += o.Misses
	s.Buffered += o.Buffered
	s.Merged += o.Merged
	s.Evictions += o.Evictions
	s.WriteBacks += o.WriteBacks
}

// find pins the frame of a page, nil if there is none.
func (s *shard) find(page uint32) *frame {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pin(page)
}

// pin is find with the lock held.
func (s *shard) pin(page uint32) *frame {
	slot, ok := s.slots.Get(page)
	if !ok {
		return nil
	}
	f := s.frames[slot]
	f.pins++
	f.referenced = true
	s.stats.Hits++
	return f
}

// insert makes f the frame of its page, unless that has one already, which it then pins and returns.
func (s *shard) insert(f *frame) (*frame, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if other := s.pin(f.page); other != nil {
		return other, nil
	}
	slot := uint32(len(s.frames))
	if n := len(s.free); n > 0 {
		slot = s.free[n-1]
	}
	if err := s.slots.Set(f.page, slot); err != nil {
		return nil, err
	}
	if n := len(s.free); n > 0 {
		s.free = s.free[:n-1]
	} else {
		s.frames = append(s.frames, nil)
	}
	s.frames[slot] = f
	s.stats.Misses++
	return f, nil
}

// remove has nobody find f any more. The lock is held.
func (s *shard) remove(f *frame) {
	slot, _ := s.slots.Get(f.page)
	s.slots.Delete(f.page)
	s.frames[slot] = nil
	s.free = append(s.free, slot)
}

// unpin ends the use of f, and reports whether its block is nobody's now.
func (s *shard) unpin(f *frame, dirty bool) (orphan bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f.dirty = f.dirty || dirty
	s.release(f)
	return f.pins == 0 && f.err != nil
}

// release is unpin with the lock held.
func (s *shard) release(f *frame) {
	f.pins--
	if f.pins == 0 {
		s.room.signal()
	}
}

// victim removes a frame that nobody uses, and returns it, nil if there is none. It is the second one of those that
// were used since the hand last came by. A dirty one is written before, without the lock; if that fails, another one is
// looked for.
func (s *shard) victim(to pages) (*frame, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var failed error
	for range 2 * len(s.frames) {
		if s.hand >= len(s.frames) {
			s.hand = 0
		}
		f := s.frames[s.hand]
		s.hand++
		switch {
		case f == nil || f.pins > 0:
			continue
		case f.referenced:
			f.referenced = false
			continue
		case f.dirty:
			if err := s.writeBack(f, to); err != nil {
				failed = err
			}
			if f.dirty || f.pins > 0 || f.referenced { // somebody has used it meanwhile
				continue
			}
		}
		s.remove(f)
		s.stats.Evictions++
		return f, nil
	}
	return nil, failed
}

// writeBack writes f, which is dirty and stays pinned meanwhile. The lock is held but for the write.
func (s *shard) writeBack(f *frame, to pages) error {
	f.pins++
	f.dirty = false
	s.stats.WriteBacks++
	s.mu.Unlock()
	f.latch.RLock()
	err := to.writePage(f.page, f.bytes())
	f.latch.RUnlock()
	s.mu.Lock()
	f.dirty = f.dirty || err != nil
	s.release(f)
	return err
}
