package blockalloc

import (
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"
)

// slabClassOf returns the number of the class that serves size bytes, at least one. The
// classes are the multiples of 8 up to 64, then four to each power of two: 80, 96, 112,
// 128, 160, … So no slot is more than a quarter larger than what it serves, except
// below 32 bytes.
//
// A size that is a multiple of align has a class whose size is one too. From 1<<k to
// 2<<k, the classes are all multiples of 1<<k/4, and so of the stricter alignments up
// to 2<<k as well.
func slabClassOf(size uintptr) int {
	k := bits.Len(uint(size-1) | 32)
	return (k-6)*4 + int((size-1)>>((k-3)&63))
}

// slabClassSize returns the size of the slots of a class.
func slabClassSize(class int) uintptr {
	if class < 8 {
		return uintptr(class+1) * 8
	}
	return uintptr(class%4+5) << (class/4 + 2)
}

// A slabClass has the blocks of one slot size. It fills whole cache lines.
type slabClass struct {
	slabClassData
	_ [128 - unsafe.Sizeof(slabClassData{})%128]byte
}

type slabClassData struct {
	size  uintptr // of a slot
	slots uint32  // in a block
	index int     // in Slab.classes

	mu      sync.Mutex   // guards what follows
	blocks  []*slabBlock // all of them
	partial slabList     // those with free slots that are no shard's
	empty   slabList     // those kept for reuse, or that the parent refused to take back
}

// A slabList is a list of blocks. The zero slabList is empty.
type slabList struct {
	first, last *slabBlock
	n           int
}

func (l *slabList) push(h *slabBlock) {
	h.prev, h.next = l.last, nil
	if l.last != nil {
		l.last.next = h
	} else {
		l.first = h
	}
	l.last = h
	l.n++
}

// pop removes the block that was pushed first, nil if there is none.
func (l *slabList) pop() *slabBlock {
	h := l.first
	if h != nil {
		l.remove(h)
	}
	return h
}

func (l *slabList) remove(h *slabBlock) {
	if h.prev != nil {
		h.prev.next = h.next
	} else {
		l.first = h.next
	}
	if h.next != nil {
		h.next.prev = h.prev
	} else {
		l.last = h.prev
	}
	h.prev, h.next = nil, nil
	l.n--
}

// has reports whether h, which is in no other list, is in this one.
func (l *slabList) has(h *slabBlock) bool { return l.first == h || h.prev != nil }

// add and drop keep the list of all blocks. c.mu is held.
func (c *slabClass) add(h *slabBlock) {
	h.index = len(c.blocks)
	c.blocks = append(c.blocks, h)
}

func (c *slabClass) drop(h *slabBlock) {
	last := len(c.blocks) - 1
	c.blocks[h.index] = c.blocks[last]
	c.blocks[h.index].index = h.index
	c.blocks[last] = nil
	c.blocks = c.blocks[:last]
}

// next returns a block with free slots that is no shard's, nil if there is none. It
// takes the one listed first, most of whose slots may be free by now. With 100,000
// blocks replaced at random, that halves the cost of an operation compared to the one
// listed last. c.mu is held.
func (c *slabClass) next() *slabBlock {
	if h := c.partial.pop(); h != nil {
		return h
	}
	h := c.empty.pop()
	if h != nil {
		h.unclaim(len(h.free))
	}
	return h
}

// refill allocates a slot of c, and replaces a shard's current block if that has no
// free slot.
//
// Before it fails, it locks the gate, so that no block is on its way from or to the
// parent. Then it takes a slot of another shard's block, or gives all empty blocks back
// and asks the parent again.
func (s *Slab) refill(c *slabClass, current *atomic.Pointer[slabBlock]) (unsafe.Pointer, error) {
	p, err := s.refillFromClass(c, current)
	if p != nil || err != nil {
		return p, err
	}
	p, failed := s.refillBesideOthers(c, current)
	if failed == nil {
		return p, nil
	}
	s.gate.Lock()
	defer s.gate.Unlock()
	if p, err := s.refillFromClass(c, current); p != nil || err != nil {
		return p, err
	}
	if p := s.steal(c); p != nil {
		return p, nil
	}
	if !isOutOfMemory(failed) {
		return nil, failed
	}
	_ = s.trim() // what the parent refuses to take is kept
	return s.refillFromParent(c, current)
}

// refillFromClass allocates a slot of a block that c has. It returns nil if no block of
// c has a free slot.
func (s *Slab) refillFromClass(c *slabClass, current *atomic.Pointer[slabBlock]) (unsafe.Pointer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.closed.Load() {
		return nil, ErrClosed
	}
	for {
		h := current.Load()
		if h == nil {
			if h = c.next(); h == nil {
				return nil, nil
			}
			h.state.Store(slabCurrent)
			current.Store(h)
		}
		if p := h.take(); p != nil { // of a new block, or one that was freed meanwhile, or that another goroutine has put here
			return p, nil
		}
		if h.leave() {
			current.Store(nil)
		}
	}
}

// refillBesideOthers calls refillFromParent with the gate read-locked.
func (s *Slab) refillBesideOthers(c *slabClass, current *atomic.Pointer[slabBlock]) (unsafe.Pointer, error) {
	s.gate.RLock()
	defer s.gate.RUnlock()
	return s.refillFromParent(c, current)
}

// refillFromParent gets a block from the parent. The gate is held.
func (s *Slab) refillFromParent(c *slabClass, current *atomic.Pointer[slabBlock]) (unsafe.Pointer, error) {
	if s.closed.Load() {
		return nil, ErrClosed
	}
	mem, err := s.parent.Allocate(BlockLayout(s.blockSize))
	if err != nil {
		return nil, err
	}
	h := newSlabBlock(c, mem)
	p := h.take()
	if !s.table.store(mem.Addr(), h) {
		return nil, errors.Join(fmt.Errorf("%w: %v is at too high an address", ErrOutOfMemory, mem), s.parent.Free(mem))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.add(h)
	if current.Load() == nil {
		current.Store(h) // state is slabCurrent
	} else { // another goroutine was faster
		h.state.Store(slabPartial)
		c.partial.push(h)
	}
	return p, nil
}

// steal allocates a slot of c from the current block of any shard.
func (s *Slab) steal(c *slabClass) unsafe.Pointer {
	for current := range s.currentOf(c) {
		if h := current.Load(); h != nil {
			if p := h.take(); p != nil {
				return p
			}
		}
	}
	return nil
}

// freed is called after a slot of h was freed and h was no shard's current block. It
// lists h if that was full, and takes it out of use if it is empty. If the parent
// panics or ends the goroutine when it gets a block back, the slot becomes live again:
// a count above has not seen the free.
func (s *Slab) freed(h *slabBlock, slot uint32) {
	if !s.list(h) {
		return
	}
	returned := false
	defer func() {
		if !returned {
			s.retake(h, slot)
		}
	}()
	for {
		surplus := s.takeSurplus(h.class)
		if surplus == nil || s.giveBackSurplus(surplus) != nil { // what is refused is kept, and tried again by Trim and Close
			break
		}
	}
	returned = true
}

// retake makes a slot of h, which was empty, live again, unless another goroutine has
// allocated it or the parent has h.
func (s *Slab) retake(h *slabBlock, slot uint32) {
	c := h.class
	c.mu.Lock()
	defer c.mu.Unlock()
	word, bit := h.bit(slot)
	if h.state.Load() != slabEmpty { // it was put to use again
		for free := word.Load(); free&bit != 0 && !word.CompareAndSwap(free, free&^bit); free = word.Load() {
		}
		return
	}
	if !c.empty.has(h) || s.closed.Load() {
		return
	}
	c.empty.remove(h)
	for i := range h.free {
		free := h.all(i)
		if &h.free[i] == word {
			free &^= bit
		}
		h.free[i].Store(free)
	}
	h.state.Store(slabPartial)
	c.partial.push(h)
}

// list is freed without giving blocks back. It reports whether h is empty.
func (s *Slab) list(h *slabBlock) bool {
	c := h.class
	c.mu.Lock()
	defer c.mu.Unlock()
	if h.state.Load() == slabFull {
		h.state.Store(slabPartial)
		c.partial.push(h)
	}
	if h.state.Load() != slabPartial || !h.claim() {
		return false
	}
	c.partial.remove(h)
	h.state.Store(slabEmpty)
	c.empty.push(h)
	return true
}

// takeSurplus takes an empty block out of c if c has more than it keeps, and read-locks
// the gate. It returns nil, without the gate, if there is none.
func (s *Slab) takeSurplus(c *slabClass) *slabBlock {
	c.mu.Lock()
	defer c.mu.Unlock()
	// A goroutine that holds the gate for writing, or waits for it, is about to give all
	// empty blocks back, or to close. If that fails, the next empty block takes this one
	// with it.
	if c.empty.n <= s.maxEmpty() || !s.gate.TryRLock() {
		return nil
	}
	h := c.empty.pop()
	c.drop(h)
	return h
}

func (s *Slab) giveBackSurplus(h *slabBlock) error {
	defer s.gate.RUnlock()
	return s.giveBack(h)
}

// giveBack gives h's memory to the parent. It keeps h if the parent refuses it, panics
// or ends the goroutine. h is claimed and in no list. The gate is held, h.class.mu is
// not.
func (s *Slab) giveBack(h *slabBlock) (err error) {
	s.table.store(h.mem.Addr(), nil) // before others can have that address
	taken := false
	defer func() {
		if !taken {
			s.table.store(h.mem.Addr(), h)
			h.keep()
		}
	}()
	err = s.parent.Free(h.mem)
	taken = err == nil
	return err
}

// keep lists h, which is claimed and in no list, among the empty blocks.
func (h *slabBlock) keep() {
	h.class.mu.Lock()
	defer h.class.mu.Unlock()
	h.class.add(h)
	h.class.empty.push(h)
}
