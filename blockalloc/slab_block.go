package blockalloc

import (
	"fmt"
	"math/bits"
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/hidden"
)

// A slabBlock is the header of a block of the parent's that is cut into slots of one
// class. Masking a pointer into the block gives the block's number, which the Slab's
// table maps to the header.
//
// The header is not in the block. A pointer to free may not be this Slab's, so that the
// table must be asked before memory below it is read. And goroutines may keep a header
// after the parent has got the block back and unmapped it. On the Go heap a header
// lives as long as somebody has it, and never becomes the header of another block.
// Besides, slots can fill the block, and headers do not compete for the same cache
// lines.
//
// Memory ordering: Go's atomics are sequentially consistent, and what follows needs
// that. The race detector sees them, and so the order of a slot's users.
type slabBlock struct {
	mark hidden.Mark // it knows slots, and holds mem alone

	// These do not change.
	base  unsafe.Pointer // of slot 0: the block's address
	free  []slabWord     // a bit for each slot
	size  uintptr        // of a slot
	magic uint64         // 1<<slabMagicShift/size, rounded up
	slots uint32
	class *slabClass
	mem   Block // the parent's block

	// state says who lists free slots. It is written under class.mu, and read without it
	// after a free. A free sets the slot's bit before it reads state. A change of state
	// comes before a look at the bits. So one of the two sees the other.
	state atomic.Int32

	requests slabRequests

	hint atomic.Uint32 // where to look for a free slot first: an index of free; only a guess

	// These are guarded by class.mu.
	next, prev *slabBlock // in class.partial or class.empty
	index      int        // in class.blocks
}

// The values of slabBlock.state.
const (
	slabCurrent = iota // it is the current block of a shard, which finds what is freed
	slabFull           // no slot was free: the first to free one lists the block
	slabPartial        // it is listed for those who need a block
	slabEmpty          // all slots are claimed: it is kept for reuse, or going back to the parent
)

// A slabWord says which of 32 slots are free: bit i is set if slot i is. Clearing a bit
// by an atomic update allocates the slot, and setting it frees it, so that of several
// frees at once only one succeeds. The word also orders the two: the next user of a
// slot sees what was written before it was freed.
//
// When an empty block is taken out of use, its words are claimed: one update a word
// clears all bits and sets slabClaimed, and fails if a slot was allocated meanwhile.
// Goroutines that still have the block then find no free slot, and a second free finds
// the word claimed. Neither changes it.
type slabWord struct{ atomic.Uint64 }

const (
	slabWordSlots = 32
	slabClaimed   = 1 << slabWordSlots
)

// slabMagicShift makes the division of an offset by a slot size an exact
// multiplication. For that, offset times the error of magic, which is below size, must
// be below 1<<slabMagicShift, and offset*magic below 1<<64. With blocks of 1<<22 bytes
// and slots of an eighth of that, they take 41 and 22+42-3 bits.
const slabMagicShift = 42

// newSlabBlock returns the header of mem, with all slots free.
func newSlabBlock(c *slabClass, mem Block) *slabBlock {
	n := (c.slots + slabWordSlots - 1) / slabWordSlots
	h := &slabBlock{
		mark: hidden.Holding(),
		base: mem.ptr, mem: mem, class: c, slots: c.slots, size: c.size,
		magic: (1<<slabMagicShift + uint64(c.size) - 1) / uint64(c.size),
		free:  make([]slabWord, n, roundUp(uintptr(n), 8)), // in cache lines of their own
	}
	for i := range h.free {
		h.free[i].Store(h.all(i))
	}
	return h
}

// all is the value of word i with all slots free.
func (h *slabBlock) all(i int) uint64 {
	n := min(slabWordSlots, int(h.slots)-i*slabWordSlots)
	return 1<<n - 1
}

// take allocates a slot. It returns nil if none is free.
func (h *slabBlock) take() unsafe.Pointer {
	first := int(h.hint.Load())
	for n := range h.free {
		i := first + n
		if i >= len(h.free) {
			i -= len(h.free)
		}
		for {
			free := h.free[i].Load()
			if uint32(free) == 0 {
				break
			}
			if h.free[i].CompareAndSwap(free, free&(free-1)) {
				if n > 0 {
					h.hint.Store(uint32(i))
				}
				return h.slot(i, free)
			}
		}
	}
	return nil
}

// slot returns the slot of the lowest set bit of free, a value of word i.
func (h *slabBlock) slot(i int, free uint64) unsafe.Pointer {
	return unsafe.Add(h.base, uintptr(i*slabWordSlots+bits.TrailingZeros64(free))*h.size)
}

// grant returns the slot of the lowest set bit of free, a value of word i that the caller has just changed, as the
// answer to l.
func (h *slabBlock) grant(i int, free uint64, l Layout) Block {
	slot := i*slabWordSlots + bits.TrailingZeros64(free)
	h.requests.store(h, uint32(slot), l)
	return serve(unsafe.Add(h.base, uintptr(slot)*h.size), h.size, l)
}

// again returns b, which is the live slot, as the answer to l.
func (h *slabBlock) again(b, live Block, l Layout) Block {
	slot, _ := h.find(live.Addr())
	h.requests.store(h, slot, l)
	n := grant(live.ptr, h.size, l)
	n.clearSlack(b, live)
	return n
}

// find returns the number of the slot that holds addr, an address in the block, and
// addr's offset in it. Behind the last slot the number is h.slots or more.
func (h *slabBlock) find(addr uintptr) (slot uint32, offset uintptr) {
	in := addr - uintptr(h.base)
	slot = uint32(uint64(in) * h.magic >> slabMagicShift)
	return slot, in - uintptr(slot)*h.size
}

// bit returns the word and the bit of a slot.
func (h *slabBlock) bit(slot uint32) (*slabWord, uint64) {
	return &h.free[slot/slabWordSlots], 1 << (slot % slabWordSlots)
}

// live returns a slot as it was granted last.
func (h *slabBlock) live(slot uint32) Block {
	return grant(unsafe.Add(h.base, uintptr(slot)*h.size), h.size, h.requests.load(h, slot))
}

// exact returns the live slot of h that b is. It has another size than b if [FromRaw] made b of a size that
// was asked for or more.
func (h *slabBlock) exact(b Block) (Block, error) {
	slot, offset := h.find(b.Addr())
	switch {
	case slot >= h.slots || offset != 0:
		return b, fmt.Errorf("%w: no block begins at this address: free the Block that was allocated", ErrNotOwned)
	case b.requested != 0 && b.size != h.size:
		return b, h.wrongSize()
	}
	if word, bit := h.bit(slot); !word.isLive(bit) {
		return b, errSlotFree
	}
	live := h.live(slot)
	if !b.Is(live) {
		return b, h.wrongSize()
	}
	return live, nil
}

func (h *slabBlock) wrongSize() error {
	return fmt.Errorf("%w: the block at this address has %d B: free the Block that was allocated", ErrNotOwned, h.size)
}

var errSlotFree = fmt.Errorf("%w: free a block once", ErrDoubleFree)

func (w *slabWord) isLive(bit uint64) bool { return w.Load()&(bit|slabClaimed) == 0 }

// leave marks h as full and reports whether it is: then the next free lists it. h is a
// shard's current block, and h.class.mu is held.
func (h *slabBlock) leave() bool {
	// Say so before looking: a free at the same time is either seen here, or sees that
	// h is full and lists it once class.mu is unlocked.
	h.state.Swap(slabFull)
	for i := range h.free {
		if uint32(h.free[i].Load()) != 0 {
			h.state.Store(slabCurrent)
			return false
		}
	}
	return true
}

// liveSlots returns the number of live slots.
func (h *slabBlock) liveSlots() (n int) {
	for i := range h.free {
		if free := h.free[i].Load(); free&slabClaimed == 0 {
			n += bits.OnesCount64(h.all(i) &^ free)
		}
	}
	return n
}

// claim takes h out of use if it is empty, and reports whether it was. h.class.mu is
// held, and h is not claimed.
func (h *slabBlock) claim() bool { return h.empty() && h.claimWords() }

// empty reports whether no slot seems to be live. Most often one is, and this look does
// not disturb those who allocate and free in h.
func (h *slabBlock) empty() bool {
	for i := range h.free {
		if h.free[i].Load() != h.all(i) {
			return false
		}
	}
	return true
}

// claimWords claims all words or none.
func (h *slabBlock) claimWords() bool {
	for i := range h.free {
		if !h.free[i].CompareAndSwap(h.all(i), slabClaimed) {
			h.unclaim(i)
			return false
		}
	}
	return true
}

// unclaim puts the first n words of a claimed block back to use, with all slots free.
// Nobody else changes a claimed word.
func (h *slabBlock) unclaim(n int) {
	for i := range h.free[:n] {
		h.free[i].Store(h.all(i))
	}
}
