// Package blockalloc allocates blocks of memory that are aligned to a power of
// two, most often to their own size, outside the Go heap where the platform
// allows it.
//
// A block aligned to its size lets any pointer into it be masked down to the
// block's start, which is what page caches, database buffers and language VMs
// build on:
//
//	mem := &blockalloc.System{}
//	b, err := mem.Allocate(blockalloc.BlockLayout(64 << 10)) // 64 KiB at a multiple of 64 KiB
//	…
//	err = mem.Free(b)
//
// Memory outside the Go heap is not scanned by the garbage collector: a Go
// pointer stored in a block does not keep what it points to alive. Keep
// pointer-free data in blocks.
package blockalloc

// An Allocator hands out blocks of memory.
//
// Implementations must keep this contract, which package blocktest checks:
//
//   - Allocate returns a block of at least l.Size bytes whose address is a
//     multiple of l.Align, and which overlaps no other live block. Size zero
//     gives the empty Block and no error. A layout that fails [Layout.Check]
//     is [ErrBadLayout], before anything else.
//   - Reallocate returns a block of at least size bytes with b's alignment,
//     beginning with the first min(b.Size(), size) bytes of b; b is then no
//     longer valid, whether or not its memory moved. If it fails, it returns b
//     itself, which is still valid and untouched. Size zero frees b and returns
//     the empty Block. The empty Block is refused with ErrBadLayout, for the
//     alignment wanted is not known.
//   - Free gives back a block of this allocator. Freeing the empty Block does
//     nothing. A block that is not live is refused with [ErrDoubleFree] or
//     [ErrNotOwned], and nothing else happens.
//   - If a call of the allocator below panics or ends the goroutine ([runtime.Goexit]),
//     that goes on to the caller, and nothing stays locked. A block that was to be
//     freed or reallocated is then live or freed, as an [Owner] tells, and no other
//     block is lost.
//
// A Block is a value. A copy of one that was freed cannot be told from a new block at the
// same address and of the same size: to free the copy then frees the new block. A wrapper
// takes back every block of the allocator that it wraps, also one that was not allocated
// through the wrapper.
//
// Each implementation says whether it may be used by several goroutines at
// once and whether fresh memory is zeroed.
type Allocator interface {
	Allocate(l Layout) (Block, error)
	Reallocate(b Block, size uintptr) (Block, error)
	Free(b Block) error
}

// An Owner is an [Allocator] that can tell its own live blocks from others. A wrapper
// owns what the allocator that it wraps owns, by whichever way that was allocated. The
// empty Block is owned by nobody. Find an Owner with [OwnerOf].
type Owner interface {
	Owns(b Block) bool
}

// OwnerOf returns the Owner behind a, looking through wrappers. A wrapper hands
// out the blocks of what it wraps, and says so by an Unwrap method that returns
// one Allocator or several: it is an Owner if all of them are. An allocator that
// makes blocks of its own out of another's memory has a Parent method instead.
func OwnerOf(a Allocator) (Owner, bool) {
	switch w := a.(type) {
	case interface{ Unwrap() Allocator }:
		if _, ok := OwnerOf(w.Unwrap()); !ok {
			return nil, false
		}
	case interface{ Unwrap() []Allocator }:
		for _, inner := range w.Unwrap() {
			if _, ok := OwnerOf(inner); !ok {
				return nil, false
			}
		}
	}
	o, ok := a.(Owner)
	return o, ok
}

// needAllocator panics if a is nil. The text begins with call, such as "NewLocked(nil)".
func needAllocator(call string, a Allocator) {
	if a == nil {
		panic("blockalloc: " + call + ": pass an allocator, such as blockalloc.Default()")
	}
}

// ownerOfInner returns the Owner of a wrapper's inner allocator, nil if it has none. It
// panics as needAllocator does.
func ownerOfInner(call string, inner Allocator) Owner {
	needAllocator(call, inner)
	o, _ := OwnerOf(inner)
	return o
}
