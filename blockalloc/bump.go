package blockalloc

import "unsafe"

// Bump is an [Allocator] that takes one piece of memory from a parent and allocates by
// moving a pointer up. Freeing the newest block moves the pointer down again, past its
// padding and past the freed blocks beneath it. [Bump.Release] and [Bump.Reset] free
// many blocks at once. It suits work that frees in reverse order, or all together: the
// buffers of a request, the temporaries of a compiler pass.
//
// Blocks have exactly the size asked for, and are cleared if [Layout].Zeroed asks for that. The memory can be used to
// its last byte.
//
// [Bump.Owns] is exact. A free of a foreign block, a second free and one of the wrong
// size are errors. A freed block equals a later one of the same address and size.
// Blocks that end by Release, Reset or Close still count as live in a wrapper, such as
// a counting proxy: wrap the parent to count its memory.
//
// Allocate, and Free of the newest block, each cost about one atomic addition. Free of
// another block among n takes log n steps. Nothing is allocated on the Go heap until
// there are more blocks than ever before. A block takes 24 bytes (16 with 32-bit
// addresses) on the Go heap beside its padding.
//
// A Bump is for one goroutine at a time; the race detector reports two. Close it, or
// its memory stays allocated in the parent.
type Bump struct {
	bumper
	_ [128 - unsafe.Sizeof(bumper{})%128]byte // the Bumps of two goroutines meet in no cache line
}

var (
	_ Allocator = (*Bump)(nil)
	_ Owner     = (*Bump)(nil)
	_ Resizer   = (*Bump)(nil)
)

// NewBump returns a Bump on size bytes of memory, which it takes from parent in one
// piece. The piece is aligned to a page, or if it is smaller, to the largest power of
// two in size. The parent's error is returned unchanged; size zero is [ErrBadLayout].
// It panics if parent is nil.
func NewBump(parent Allocator, size uintptr) (*Bump, error) {
	a, err := newBumper("NewBump", "Bump", parent, size)
	if err != nil {
		return nil, err
	}
	return &Bump{bumper: a}, nil
}

// Parent returns the allocator that the memory came from.
func (b *Bump) Parent() Allocator { return b.parent }

// Close frees all blocks and gives the memory back to the parent. After it, Allocate
// fails with [ErrClosed]. If the parent refuses, Close returns its error unchanged,
// nothing has changed, and Close can be called again. Closing a closed Bump does
// nothing.
func (b *Bump) Close() error {
	b.guard.use()
	return b.close()
}
