package blockalloc

import "unsafe"

// Null is an [Allocator] without memory: it refuses every size but zero with
// [ErrOutOfMemory], and every block with [ErrNotOwned]. It ends chains of allocators,
// and shows that a part of a program allocates nothing. Several goroutines may use it
// at once.
type Null struct{}

var (
	_ Allocator = Null{}
	_ Owner     = Null{}
	_ Resizer   = Null{}
)

// Allocate refuses all sizes but zero.
func (Null) Allocate(l Layout) (Block, error) {
	if err := l.Check(); err != nil {
		return Block{}, allocateError("Null", l, err)
	}
	if l.Size == 0 {
		return Block{}, nil
	}
	return Block{}, allocateError("Null", l, ErrOutOfMemory)
}

// Reallocate refuses every block.
func (Null) Reallocate(b Block, size uintptr) (Block, error) {
	if b.IsZero() {
		return b, reallocateError("Null", b, size, errEmptyReallocate)
	}
	return b, reallocateError("Null", b, size, ErrNotOwned)
}

// Resize refuses every block.
func (Null) Resize(b Block, size uintptr) (Block, error) {
	_, err := checkResize(b, size)
	if err == nil {
		err = ErrNotOwned
	}
	return b, resizeError("Null", b, size, err)
}

// Free refuses every block but the empty one.
func (Null) Free(b Block) error {
	if b.IsZero() {
		return nil
	}
	return freeError("Null", b, ErrNotOwned)
}

// Owns returns false.
func (Null) Owns(Block) bool { return false }

// Find returns no block.
func (Null) Find(unsafe.Pointer) (Block, bool) { return Block{}, false }
