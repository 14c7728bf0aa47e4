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
//
// Each implementation says whether it may be used by several goroutines at
// once and whether fresh memory is zeroed.
type Allocator interface {
	Allocate(l Layout) (Block, error)
	Reallocate(b Block, size uintptr) (Block, error)
	Free(b Block) error
}

// An Owner is an [Allocator] that can tell its own live blocks from others.
// The empty Block is owned by nobody. Find it with [OwnerOf].
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
