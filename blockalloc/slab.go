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
// parent, 64 KiB each or what it is told, aligned to their size, and cuts each into
// slots of one of its classes: the multiples of 8 up to 64 bytes, then four steps to
// each power of two, up to an eighth of the block. What is larger than that goes
// straight to the parent, and so does what is to be aligned more strictly. The
// granted size is that of the slot. Memory is not zeroed.
//
// A Slab may be used by several goroutines at once, and any may free what another
// allocated; the parent must be safe for them too (see [Locked]). An operation
// costs one atomic instruction and a dozen loads where the goroutine's shard has a
// block with a free slot: no lock is taken, and no other core's cache line written
// unless it is another core's slot that is freed. A lock of the class is taken about
// twice in the life of each block. What goes straight to the parent costs the
// parent's price, two locks and an entry in a map.
//
// A pointer to anywhere in a slot leads to its block by masking, and from there to
// the slot, without touching memory: see [Slab.Find]. So a free of what is not a live
// block of this Slab is an error, found in constant time, whatever it points to; not
// though if the slot was allocated again meanwhile. It is [ErrDoubleFree] as long as
// the parent has not got the slot's block back, and then [ErrNotOwned].
//
// Blocks without a live slot go back to the parent, all but MaxEmpty in each class
// and the current ones, of which each shard has one for each class that was
// allocated there: there are four shards a processor, 64 at most. [Slab.Trim] gives
// these back as well, and so does a Slab whose parent has run out of memory before
// it says so.
//
// Beside the blocks, a Slab takes 64 KiB of Go memory, and for each block 160 bytes
// and a bit for each half slot: 0.6 % at 64 bytes, and 3.4 % at 8.
type Slab struct {
	// MaxEmpty is how many empty blocks of each class are kept for reuse. Zero means
	// one; a negative number means none. It must not be changed once the Slab is in
	// use.
	MaxEmpty int

	parent    Allocator
	blockSize uintptr
	maxSlot   uintptr

	current []atomic.Pointer[slabBlock] // by shard and class
	stride  uint32                      // from a shard to the next in current
	table   radix[slabBlock]            // of the blocks that the parent has not got back, by their number
	classes []slabClass

	large registry[struct{}] // the live blocks that came straight from the parent

	// gate is held for reading while memory is on its way from the parent or back to
	// it, and for writing by who wants to know that none is: Close, and who has been
	// refused memory. It is taken before the lock of a class.
	gate   sync.RWMutex
	closed atomic.Bool // written while gate and the locks of all classes are held
}

var (
	_ Allocator = (*Slab)(nil)
	_ Owner     = (*Slab)(nil)
)

// The blocks of a Slab are at least 1<<minSlabShift bytes, and at most 1<<maxSlabShift.
const (
	minSlabShift = 12
	maxSlabShift = 22
)

// NewSlab returns a Slab that takes blocks of blockSize bytes from parent. The size
// is a power of two from 4 KiB to 4 MiB; 64 KiB is a good one: larger blocks serve
// larger slots, and smaller ones go back to the parent sooner. Nothing is taken from
// the parent before it is needed. Close the Slab to give all back.
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
// parent's if l is larger, or more strictly aligned, than any.
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
				return Block{h.slot(i, free), h.size, l.Align}, nil
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
			return Block{p, c.size, l.Align}, nil
		}
	}
	p, err := s.refill(c, current)
	if err != nil {
		return Block{}, allocateError("Slab", l, err)
	}
	return Block{p, c.size, l.Align}, nil
}

// Free makes b's slot available to later allocations, or gives b to the parent if it
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
		return freeError("Slab", b, h.check(b))
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

// Reallocate keeps b where it is if its class serves the new size as well, and
// copies into a new slot otherwise. A block of the parent's that is to stay one is
// the parent's to reallocate.
func (s *Slab) Reallocate(b Block, size uintptr) (Block, error) {
	if b.IsZero() {
		return b, reallocateError("Slab", b, size, errEmptyReallocate)
	}
	l := Layout{size, b.align}
	if err := l.Check(); err != nil {
		return b, reallocateError("Slab", b, size, err)
	}
	isLarge := size > s.maxSlot || b.align > s.maxSlot
	h := s.table.load(b.Addr())
	if h == nil {
		if err := s.large.check(b); err != nil {
			return b, reallocateError("Slab", b, size, err)
		}
		if isLarge && size > 0 {
			return s.reallocateLarge(b, size)
		}
	} else {
		if err := h.check(b); err != nil {
			return b, reallocateError("Slab", b, size, err)
		}
		if !isLarge && size > 0 && slabClassOf(roundUp(size, b.align)) == h.class.index {
			return b, nil
		}
	}
	if size == 0 {
		if err := s.Free(b); err != nil {
			return b, err
		}
		return Block{}, nil
	}
	n, err := move(s, b, size)
	if err != nil {
		return b, reallocateError("Slab", b, size, err)
	}
	return n, nil
}

// Owns reports whether b is a live block of this Slab.
func (s *Slab) Owns(b Block) bool {
	if b.IsZero() {
		return false
	}
	if h := s.table.load(b.Addr()); h != nil {
		return h.check(b) == nil
	}
	return s.large.check(b) == nil
}

// Find returns the live block that holds the byte at p, which may be any pointer
// and is not followed: what a conservative garbage collector asks for, or a virtual
// machine that has a pointer to a field and needs the object. It costs a few
// nanoseconds. The block's alignment is that of its class, which is at least what was
// asked for when it was allocated; apart from that it is the same block, and
// may be freed. Blocks that came straight from the parent are not found.
//
// If the slot is allocated or freed meanwhile, the answer is of one moment
// during the call.
func (s *Slab) Find(p unsafe.Pointer) (Block, bool) {
	h := s.table.load(uintptr(p))
	if h == nil {
		return Block{}, false
	}
	slot, _ := h.find(uintptr(p))
	if slot >= h.slots {
		return Block{}, false
	}
	if word, bit := h.bit(slot); !word.live(bit) {
		return Block{}, false
	}
	return Block{unsafe.Add(h.base, uintptr(slot)*h.size), h.size, h.size & -h.size}, true
}

// Parent returns the Allocator that the Slab takes its blocks from.
func (s *Slab) Parent() Allocator { return s.parent }
