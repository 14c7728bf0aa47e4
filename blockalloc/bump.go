package blockalloc

import "unsafe"

// Bump is an [Allocator] that takes one piece of memory from a parent and hands it
// out by moving a pointer up. Freeing the newest block moves the pointer down
// again, past the block's padding and past the blocks beneath that were freed
// before; [Bump.Release] and [Bump.Reset] free many blocks at once. It is for work
// that frees in the reverse order of allocation, or all together: the buffers of
// a request, the temporaries of a compiler pass.
//
// Blocks have exactly the size asked for and are not zeroed. The memory can be
// used to its last byte.
//
// A Bump knows its live blocks: [Bump.Owns] is exact, and a free of a foreign
// block, a second free and one of the wrong size are errors. A block of the same
// address and size as a later one cannot be told from that. Blocks that end
// without a Free, by Release, Reset or Close, still count as live in what wraps
// the Bump, such as a counting proxy: wrap the parent to count its memory.
//
// Allocate, and Free of the newest block, each cost about as much as one atomic
// addition; Free of another block searches n blocks in log n steps. Nothing
// is allocated on the Go heap once the Bump has been as full of blocks before. A
// block takes 24 bytes (16 where addresses have 32 bits) on the Go heap beside
// its padding.
//
// A Bump is for one goroutine at a time; the race detector reports two. It must
// be closed, or its memory stays allocated in the parent.
type Bump struct {
	bumper
	_ [128 - unsafe.Sizeof(bumper{})%128]byte // the Bumps of two goroutines meet in no cache line
}

var (
	_ Allocator = (*Bump)(nil)
	_ Owner     = (*Bump)(nil)
)

// NewBump returns a Bump on size bytes of memory, which it takes from parent in
// one piece, aligned to a page or, if it is smaller, to the power of two that fits
// into it. A parent's error comes back as it is; size zero is [ErrBadLayout].
func NewBump(parent Allocator, size uintptr) (*Bump, error) {
	a, err := newBumper("NewBump", "Bump", parent, size)
	if err != nil {
		return nil, err
	}
	return &Bump{bumper: a}, nil
}

// Parent returns the allocator that the memory came from.
func (b *Bump) Parent() Allocator { return b.parent }

// Close frees all blocks and gives the memory back to the parent. After it,
// Allocate fails with [ErrClosed]. If the parent refuses, its error comes back,
// the Bump and its blocks are what they were, and Close can be called again.
// Closing a closed Bump does nothing.
func (b *Bump) Close() error {
	b.guard.use()
	return b.close()
}
