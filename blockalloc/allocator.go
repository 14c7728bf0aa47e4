// Package blockalloc allocates blocks of memory, aligned to a power of two, most often
// to their own size. They are outside the Go heap if the platform allows that.
//
// If a block is aligned to its size, any pointer into it can be masked down to the
// block's start. Page caches, database buffers and language VMs rely on that:
//
//	mem := &blockalloc.System{}
//	b, err := mem.Allocate(blockalloc.BlockLayout(64 << 10)) // 64 KiB at a multiple of 64 KiB
//	…
//	err = mem.Free(b)
//
// The garbage collector does not scan memory outside the Go heap: a Go pointer in a
// block keeps nothing alive. Keep pointer-free data in blocks.
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
//     the empty Block. The empty Block is refused with ErrBadLayout, because it
//     has no alignment.
//   - If l.Zeroed is set, Allocate returns a block of zeros, up to its Size, whose
//     Layout has Zeroed set too. So has what Reallocate returns for it, and the bytes
//     beyond the old block's Size are zero.
//   - Free gives back a block of this allocator. Freeing the empty Block does
//     nothing. A block that is not live is refused with [ErrDoubleFree] or
//     [ErrNotOwned], and nothing else happens.
//   - If a call of the allocator below panics or ends the goroutine ([runtime.Goexit]),
//     so does this call, and nothing stays locked. The block that was to be freed or
//     reallocated is then live or freed, as [Owner] reports, and no other block is lost.
//
// An allocator that can resize blocks in place is a [Resizer] too.
//
// A copy of a freed Block equals a new block of the same size at the same address: to
// free the copy then frees the new block. A wrapper also takes back blocks that were
// allocated from its inner allocator directly.
//
// Each implementation says whether several goroutines may use it at once, and whether
// memory is zeroed that was not asked to be.
type Allocator interface {
	Allocate(l Layout) (Block, error)
	Reallocate(b Block, size uintptr) (Block, error)
	Free(b Block) error
}

// An Owner is an [Allocator] that knows whether a block is one of its live blocks. A
// wrapper owns what its inner allocator owns, however that was allocated. Nobody owns
// the empty Block. [OwnerOf] finds an Owner.
type Owner interface {
	Owns(b Block) bool
}

// OwnerOf returns a as an Owner. A wrapper, which has an Unwrap method that returns one
// Allocator or several, is an Owner if all of them are. An allocator that cuts
// another's memory into blocks of its own has a Parent method instead.
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
