package blockalloc

import (
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/shard"
)

// Slab is an [Allocator] for small blocks, from 8 bytes up. It takes blocks from a
// parent, most often of 64 KiB, aligned to their size, and cuts each into slots of one
// class. The classes are the multiples of 8 up to 64 bytes, then four to each power of
// two, up to an eighth of the block. Larger or more strictly aligned requests go
// straight to the parent. The granted size is the slot's. Memory is zeroed if
// [Layout].Zeroed asks for that: a slot is cleared, the parent is asked in the same way.
//
// Several goroutines may use a Slab at once, and may free what others allocated; the
// parent must allow that too (see [Locked]). An operation costs one atomic instruction
// and a dozen loads if the goroutine's shard has a free slot: it takes no lock, and
// writes another core's cache line only to free that core's slot. The class's lock is
// taken about twice in the life of a block. What goes straight to the parent costs the
// parent's price, two locks and a map entry.
//
// [Slab.Find] maps a pointer to anywhere in a slot to its block, by masking and a
// table, without touching the memory. So any free of what is not a live block is an
// error, found in constant time, unless the slot was allocated again meanwhile. It is
// [ErrDoubleFree] as long as the Slab has the slot's block, and then [ErrNotOwned].
//
// Blocks without a live slot go back to the parent, except MaxEmpty in each class and
// the current ones: one for each shard and class that was used. There are four shards a
// processor, 64 at most. [Slab.Trim] gives these back too, and so does a Slab whose
// parent is out of memory before it fails.
//
// A Slab takes 64 KiB of Go memory, and for each block 176 bytes and a bit for each half slot: 0.6 % at 64
// bytes, and 3.4 % at 8. A block whose slots serve requests of different sizes, alignments or zeroing takes
// two bytes more for each slot, or four above 1 KiB.
type Slab struct {
	// MaxEmpty is how many empty blocks of each class are kept for reuse. Zero means one; a
	// negative number means none. Do not change it once the Slab is in use.
	MaxEmpty int

	parent    Allocator
	blockSize uintptr
	maxSlot   uintptr

	current []atomic.Pointer[slabBlock] // by shard and class
	stride  uint32                      // from a shard to the next in current
	table   radix[slabBlock]            // of the blocks that the parent has not got back, by their number
	classes []slabClass

	large registry[struct{}] // the live blocks that came straight from the parent

	// gate is read-locked while memory is on its way from or to the parent. Those who must
	// know that none is lock it: Close, and an operation that was refused memory. It is
	// taken before the lock of a class.
	gate   sync.RWMutex
	closed atomic.Bool // written while gate and the locks of all classes are held
}

var (
	_ Allocator = (*Slab)(nil)
	_ Owner     = (*Slab)(nil)
	_ Resizer   = (*Slab)(nil)
)

// The blocks of a Slab are at least 1<<minSlabShift bytes, and at most 1<<maxSlabShift.
const (
	minSlabShift = 12
	maxSlabShift = 22
)

// NewSlab returns a Slab that takes blocks of blockSize bytes from parent, when they
// are needed. The size is a power of two from 4 KiB to 4 MiB, or else [ErrBadLayout].
// 64 KiB is a good one: larger blocks serve larger slots, smaller ones go back to the
// parent sooner. It panics if parent is nil. Close the Slab to give all memory back.
func NewSlab(parent Allocator, blockSize uintptr) (*Slab, error) {
	needAllocator("NewSlab(nil)", parent)
	if blockSize&(blockSize-1) != 0 || blockSize < 1<<minSlabShift || blockSize > 1<<maxSlabShift {
		return nil, fmt.Errorf("blockalloc: NewSlab(%T, %d): %w: the size of blocks must be a power of two from %d to %d: 65536 is a good one",
			parent, blockSize, ErrBadLayout, 1<<minSlabShift, 1<<maxSlabShift)
	}
	s := &Slab{
		parent:    parent,
		blockSize: blockSize,
		maxSlot:   blockSize / 8,
		table:     newRadix[slabBlock](uint(bits.TrailingZeros(uint(blockSize)))),
	}
	s.classes = make([]slabClass, slabClassOf(s.maxSlot)+1)
	for i := range s.classes {
		c := &s.classes[i]
		c.index, c.size = i, slabClassSize(i)
		c.slots = uint32(blockSize / c.size)
	}
	s.stride = uint32(roundUp(uintptr(len(s.classes)), 16)) // whole cache lines, so that shards share none
	s.current = make([]atomic.Pointer[slabBlock], shard.Count*s.stride)
	return s, nil
}

// Allocate returns a slot of the smallest class that serves l, or a block of the
// parent's if no class does.
func (s *Slab) Allocate(l Layout) (Block, error) {
	if l.Size-1 >= s.maxSlot || l.Align-1 >= s.maxSlot || l.Align&(l.Align-1) != 0 { // zeros are huge here
		return s.allocateOther(l)
	}
	class := slabClassOf(roundUp(l.Size, l.Align)) // align is a power of two, and so maxSlot is a multiple of it
	slot, mine := shard.All.Pick()
	current := &s.current[mine*s.stride+uint32(class)]
	if h := current.Load(); h != nil {
		i := int(h.hint.Load())
		word := &h.free[i]
		if free := word.Load(); uint32(free) != 0 {
			if word.CompareAndSwap(free, free&(free-1)) {
				return h.grant(i, free, l), nil
			}
			shard.All.Collided(slot)
		}
	}
	return s.allocateAgain(l, &s.classes[class], current)
}

// allocateAgain allocates a slot where the first look found none.
func (s *Slab) allocateAgain(l Layout, c *slabClass, current *atomic.Pointer[slabBlock]) (Block, error) {
	if h := current.Load(); h != nil {
		if p := h.take(); p != nil {
			return s.grant(p, l), nil
		}
	}
	p, err := s.refill(c, current)
	if err != nil {
		return Block{}, allocateError("Slab", l, err)
	}
	return s.grant(p, l), nil
}

// grant returns the slot at p, which the caller has just taken, as the answer to l.
func (s *Slab) grant(p unsafe.Pointer, l Layout) Block {
	h := s.table.load(uintptr(p))
	slot, _ := h.find(uintptr(p))
	h.requests.store(h, slot, l)
	return serve(p, h.size, l)
}

// Free makes b's slot available to later allocations, or frees b in the parent if it
// came straight from there.
func (s *Slab) Free(b Block) error {
	if b.IsZero() {
		return nil
	}
	h := s.table.load(b.Addr())
	if h == nil {
		return s.freeLarge(b)
	}
	slot, offset := h.find(b.Addr())
	if b.size != h.size || offset != 0 || slot >= h.slots {
		exact, err := h.exact(b)
		if err != nil {
			return freeError("Slab", b, err)
		}
		return s.Free(exact)
	}
	word, bit := h.bit(slot)
	for {
		free := word.Load()
		if free&(bit|slabClaimed) != 0 {
			return freeError("Slab", b, errSlotFree)
		}
		if !word.CompareAndSwap(free, free|bit) {
			continue
		}
		// A block can be empty only if the word is that of the slot freed last.
		if state := h.state.Load(); state != slabCurrent && (state == slabFull || free|bit == h.all(int(slot/slabWordSlots))) {
			s.freed(h, slot)
		}
		return nil
	}
}

// Reallocate keeps b in place if its class serves the new size, and otherwise copies it
// into a new slot. If b came straight from the parent and is still too large for a
// slot, the parent reallocates it.
func (s *Slab) Reallocate(b Block, size uintptr) (Block, error) {
	if b.IsZero() {
		return b, reallocateError("Slab", b, size, errEmptyReallocate)
	}
	l := b.layout(size)
	if err := l.Check(); err != nil {
		return b, reallocateError("Slab", b, size, err)
	}
	raw := b
	isLarge := size > s.maxSlot || l.Align > s.maxSlot
	h := s.table.load(b.Addr())
	if h == nil {
		if _, err := s.large.check(b); err != nil {
			return b, reallocateError("Slab", b, size, err)
		}
		if isLarge && size > 0 {
			return s.reallocateLarge(b, size)
		}
	} else {
		exact, err := h.exact(b)
		if err != nil {
			return b, reallocateError("Slab", b, size, err)
		}
		b = exact
		if !isLarge && size > 0 && slabClassOf(roundUp(size, l.Align)) == h.class.index {
			return h.again(raw, b, l), nil
		}
	}
	if size == 0 {
		if err := s.Free(b); err != nil {
			return raw, err
		}
		return Block{}, nil
	}
	n, err := move(s, b, size)
	if err != nil {
		return raw, reallocateError("Slab", raw, size, err)
	}
	n.clearSlack(raw, b)
	return n, nil
}

// Resize keeps b in place if its class serves the new size, or if the parent can resize a block that
// came straight from there.
func (s *Slab) Resize(b Block, size uintptr) (Block, error) {
	l, err := checkResize(b, size)
	if err != nil {
		return b, resizeError("Slab", b, size, err)
	}
	isLarge := size > s.maxSlot || l.Align > s.maxSlot
	h := s.table.load(b.Addr())
	if h == nil && isLarge {
		return s.resizeByParent(b, size)
	}
	exact := b
	if h == nil {
		_, err = s.large.check(b)
	} else {
		exact, err = h.exact(b)
	}
	switch {
	case err != nil:
	case h != nil && !isLarge && slabClassOf(roundUp(size, l.Align)) == h.class.index:
		return h.again(b, exact, l), nil
	default:
		err = errCopy
	}
	return b, resizeError("Slab", b, size, err)
}

// Owns reports whether b is a live block of this Slab.
func (s *Slab) Owns(b Block) bool {
	if b.IsZero() {
		return false
	}
	if h := s.table.load(b.Addr()); h != nil {
		_, err := h.exact(b)
		return err == nil
	}
	return s.large.owns(b)
}

// Find returns the live block of this Slab that holds the byte at p: a slot in a few nanoseconds, and
// one that came straight from the parent as that of [System] does.
func (s *Slab) Find(p unsafe.Pointer) (Block, bool) {
	h := s.table.load(uintptr(p))
	if h == nil {
		return s.large.find(p)
	}
	slot, _ := h.find(uintptr(p))
	if slot >= h.slots {
		return Block{}, false
	}
	if word, bit := h.bit(slot); !word.isLive(bit) {
		return Block{}, false
	}
	return h.live(slot), true
}

// Parent returns the allocator that the blocks come from.
func (s *Slab) Parent() Allocator { return s.parent }
