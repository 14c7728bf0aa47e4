package blockalloc

import (
	"cmp"
	"fmt"
	"sync/atomic"
)

// defaultMaxEmpty is what [Slab.MaxEmpty] is if it is zero.
const defaultMaxEmpty = 1

func (s *Slab) maxEmpty() int { return max(0, cmp.Or(s.MaxEmpty, defaultMaxEmpty)) }

// currentOf yields the pointers to c's current blocks, one a shard.
func (s *Slab) currentOf(c *slabClass) func(yield func(*atomic.Pointer[slabBlock]) bool) {
	return func(yield func(*atomic.Pointer[slabBlock]) bool) {
		for i := c.index; i < len(s.current); i += int(s.stride) {
			if !yield(&s.current[i]) {
				return
			}
		}
	}
}

// Trim gives all empty blocks back to the parent, also those kept for reuse. It visits
// each class and shard, and may run while other goroutines allocate and free. The error
// wraps the parent's; the blocks that it refused are kept.
func (s *Slab) Trim() error {
	s.gate.RLock()
	defer s.gate.RUnlock()
	if err := s.trim(); err != nil {
		return fmt.Errorf("blockalloc: Slab.Trim: %w", err)
	}
	return nil
}

// trim is Trim, and returns the first error unchanged. The gate is held.
func (s *Slab) trim() (failed error) {
	for i := range s.classes {
		failed = cmp.Or(failed, s.giveBackAll(s.takeEmpty(&s.classes[i])))
	}
	return failed
}

// giveBackAll calls giveBack for each of blocks and returns the first error.
func (s *Slab) giveBackAll(blocks []*slabBlock) (failed error) {
	defer func() {
		for _, h := range blocks { // those behind the one at which the parent did not return
			h.keep()
		}
	}()
	for len(blocks) > 0 {
		h := blocks[0]
		blocks = blocks[1:]
		failed = cmp.Or(failed, s.giveBack(h))
	}
	return failed
}

// takeEmpty removes the empty blocks from c and returns them.
func (s *Slab) takeEmpty(c *slabClass) (taken []*slabBlock) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for current := range s.currentOf(c) {
		if h := current.Load(); h != nil && h.claim() {
			current.Store(nil) // those who have loaded it find no free slot there
			h.state.Store(slabEmpty)
			c.drop(h)
			taken = append(taken, h)
		}
	}
	for h := c.empty.pop(); h != nil; h = c.empty.pop() {
		c.drop(h)
		taken = append(taken, h)
	}
	return taken
}

// Close gives all memory back to the parent. While blocks are live it returns an error
// that wraps [ErrLive], and the Slab stays open. After it, Allocate fails with
// [ErrClosed]. If the parent refuses a block, Close returns an error that wraps the
// parent's; call it again to try again.
func (s *Slab) Close() error {
	s.gate.Lock()
	defer s.gate.Unlock()
	if !s.closed.Load() {
		if err := s.shut(); err != nil {
			return err
		}
	}
	if err := s.trim(); err != nil {
		return fmt.Errorf("blockalloc: Slab.Close: %w", err)
	}
	return nil
}

// shut takes all blocks out of use, so that no slot can be allocated any more. It fails
// if a slot, or a block straight from the parent, is live.
func (s *Slab) shut() error {
	for i := range s.classes {
		s.classes[i].mu.Lock()
		defer s.classes[i].mu.Unlock()
	}
	blocks, size := s.sumLarge()
	var claimed []*slabBlock
	for i := range s.classes {
		for _, h := range s.classes[i].blocks {
			if h.state.Load() == slabEmpty {
				continue
			}
			var n int64
			for n == 0 && !h.claim() { // a slot that was live may be free by now
				n = int64(h.liveSlots())
			}
			if n == 0 {
				claimed = append(claimed, h)
			}
			blocks += n
			size += n * int64(h.size)
		}
	}
	if blocks > 0 {
		for _, h := range claimed {
			h.unclaim(len(h.free))
		}
		return closeError("Slab", int(blocks), size)
	}
	for i := range s.current {
		s.current[i].Store(nil)
	}
	for i := range s.classes {
		s.classes[i].partial = slabList{}
	}
	for _, h := range claimed {
		h.state.Store(slabEmpty)
		h.class.empty.push(h)
	}
	s.closed.Store(true)
	return nil
}

// SlabStats are the figures of a [Slab].
type SlabStats struct {
	Blocks        int64 // blocks of the parent that are cut into slots
	BlockBytes    int64 // their bytes, as the parent granted them
	EmptyBlocks   int64 // those of them without a live slot; Trim gives them back
	LiveSlots     int64
	LiveSlotBytes int64 // their bytes, as granted
	FreeBytes     int64 // the bytes of slots that are not live; the rest of BlockBytes fits no slot
	LargeBlocks   int64 // live blocks that came straight from the parent
	LargeBytes    int64 // their bytes
}

// Stats returns the Slab's figures, exact if no other goroutine uses it. It visits
// every block, some tens of nanoseconds each. Meanwhile those who need a block of the
// class that it visits wait.
func (s *Slab) Stats() SlabStats {
	var st SlabStats
	st.LargeBlocks, st.LargeBytes = s.sumLarge()
	for i := range s.classes {
		c := &s.classes[i]
		c.mu.Lock()
		for _, h := range c.blocks {
			live := int64(h.liveSlots())
			st.Blocks++
			st.BlockBytes += int64(h.mem.size)
			st.LiveSlots += live
			st.LiveSlotBytes += live * int64(h.size)
			st.FreeBytes += (int64(h.slots) - live) * int64(h.size)
			if live == 0 {
				st.EmptyBlocks++
			}
		}
		c.mu.Unlock()
	}
	return st
}
