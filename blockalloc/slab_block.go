package blockalloc

import (
	"fmt"
	"math/bits"
	"sync/atomic"
	"unsafe"
)

// A slabBlock is the header of a block: a block of the parent's that is cut into
// slots of one class. It is found by masking a pointer into the block, and looking
// up the block's number in the Slab's table.
//
// The header is not in the block itself. A pointer that somebody wants to free may
// be no pointer of this Slab, so that a table must be asked anyway before memory
// below it is read; and goroutines may hold on to a header for any length of time
// after its block has gone back to the parent, who may have unmapped it. On the Go
// heap a header lives for as long as somebody knows it, and is never the header of
// another block. Besides, the slots have all of the block, so that a slot of half a
// page is half a page in, and headers do not all compete for the same cache lines.
//
// Memory ordering: Go's atomics are sequentially consistent, and what follows needs
// it. The race detector sees them, and through them who had a slot before whom.
type slabBlock struct {
	// These do not change.
	base  unsafe.Pointer // of slot 0: the block's address
	free  []slabWord     // a bit for each slot
	size  uintptr        // of a slot
	magic uint64         // 1<<slabMagicShift/size, rounded up
	slots uint32
	class *slabClass
	mem   Block // the parent's block

	// state says who looks after free slots. It is written under class.mu and read
	// without it by those who have freed a slot. They set the slot's bit first and
	// read where then, and whoever changes where looks at the bits after that: one of
	// the two sees what the other did.
	state atomic.Int32

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

// A slabWord says of 32 slots which are free: bit i is set if slot i is. Whoever
// clears a bit by an atomic update has allocated that slot, and whoever sets it has
// freed it, so that of several who free a slot at once only one can. What was
// written to a slot before it was freed is seen by who allocates it next, for the
// word orders the two.
//
// When a block is empty and is to be taken out of use, its words are claimed: the
// bits go from all set to none at all and slabClaimed is set, in one update a word,
// which fails if anybody has allocated meanwhile. Those who still know the block from
// when it was a shard's then find no free slot in it, and those who free a slot a
// second time find it claimed, and neither changes the word.
type slabWord struct{ atomic.Uint64 }

const (
	slabWordSlots = 32
	slabClaimed   = 1 << slabWordSlots
)

// slabMagicShift makes the division of an offset by a slot size a multiplication
// that is exact: offset times the error of magic, which is less than size, must be
// less than 1<<slabMagicShift, and offset*magic less than 1<<64. With blocks of
// 1<<22 bytes and slots of an eighth of that, the two are 41 and 22+42-3 bits.
const slabMagicShift = 42

// newSlabBlock returns the header of mem, all of whose slots are free.
func newSlabBlock(c *slabClass, mem Block) *slabBlock {
	n := (c.slots + slabWordSlots - 1) / slabWordSlots
	h := &slabBlock{
		base: mem.ptr, mem: mem, class: c, slots: c.slots, size: c.size,
		magic: (1<<slabMagicShift + uint64(c.size) - 1) / uint64(c.size),
		free:  make([]slabWord, n, roundUp(uintptr(n), 8)), // in cache lines of their own
	}
	for i := range h.free {
		h.free[i].Store(h.all(i))
	}
	return h
}

// all is what word i is when all its slots are free.
func (h *slabBlock) all(i int) uint64 {
	n := min(slabWordSlots, int(h.slots)-i*slabWordSlots)
	return 1<<n - 1
}

// take allocates a slot, nil if none is free.
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

// slot returns the slot of the lowest bit that is set in free, a value of word i.
func (h *slabBlock) slot(i int, free uint64) unsafe.Pointer {
	return unsafe.Add(h.base, uintptr(i*slabWordSlots+bits.TrailingZeros64(free))*h.size)
}

// find returns the number of the slot that holds addr, an address in the block, and
// addr's offset in it. The number is h.slots or more behind the last slot.
func (h *slabBlock) find(addr uintptr) (slot uint32, offset uintptr) {
	in := addr - uintptr(h.base)
	slot = uint32(uint64(in) * h.magic >> slabMagicShift)
	return slot, in - uintptr(slot)*h.size
}

// bit returns the word and the bit of a slot.
func (h *slabBlock) bit(slot uint32) (*slabWord, uint64) {
	return &h.free[slot/slabWordSlots], 1 << (slot % slabWordSlots)
}

// check returns nil if b is a live slot of h.
func (h *slabBlock) check(b Block) error {
	slot, offset := h.find(b.Addr())
	switch {
	case slot >= h.slots || offset != 0:
		return fmt.Errorf("%w: no block begins at this address: free the Block that was allocated", ErrNotOwned)
	case b.size != h.size:
		return fmt.Errorf("%w: the block at this address has %d B: free the Block that was allocated", ErrNotOwned, h.size)
	}
	if word, bit := h.bit(slot); !word.live(bit) {
		return errSlotFree
	}
	return nil
}

var errSlotFree = fmt.Errorf("%w: free a block once", ErrDoubleFree)

func (w *slabWord) live(bit uint64) bool { return w.Load()&(bit|slabClaimed) == 0 }

// leave says that h is full, so that it can be left to those who free its slots, and
// reports whether it was. h is a shard's current block, and h.class.mu is held.
func (h *slabBlock) leave() bool {
	// Say so before looking: whoever frees a slot now either is seen here, or sees
	// that h is full and lists it once class.mu is free.
	h.state.Swap(slabFull)
	for i := range h.free {
		if uint32(h.free[i].Load()) != 0 {
			h.state.Store(slabCurrent)
			return false
		}
	}
	return true
}

// live returns the number of live slots.
func (h *slabBlock) live() (n int) {
	for i := range h.free {
		if free := h.free[i].Load(); free&slabClaimed == 0 {
			n += bits.OnesCount64(h.all(i) &^ free)
		}
	}
	return n
}

// claim takes an empty block out of use and reports whether it was empty. h.class.mu
// is held, and h is not claimed.
func (h *slabBlock) claim() bool { return h.empty() && h.claimWords() }

// empty reports whether no slot seems to be live. Most often one is, and those who
// allocate and free in h need not be disturbed.
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

// unclaim puts the first n words of a claimed block back to use: all their slots are
// free. Nobody else changes a word that is claimed.
func (h *slabBlock) unclaim(n int) {
	for i := range h.free[:n] {
		h.free[i].Store(h.all(i))
	}
}
