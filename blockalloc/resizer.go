package blockalloc

import "fmt"

// A Resizer is an [Allocator] that can change the size of a block without moving it.
//
// Resize returns a block of at least size bytes at b's address and with its alignment, beginning with
// the first min(b.Size(), size) bytes of b. Then b is no longer valid. Otherwise it returns b
// itself, which is still valid and untouched, and an error that wraps [ErrWouldMove] if
// Reallocate may be able to do it by moving the block. Size zero is [ErrBadLayout]: use
// Free. So is the empty Block. A block that is not live is refused as by Free.
//
// A wrapper has the method whatever its inner allocator is, and answers ErrWouldMove if that is no
// Resizer.
type Resizer interface {
	Resize(b Block, size uintptr) (Block, error)
}

// Resize changes the size of b, a block of a, without moving it: for memory that others have
// pointers into. It fails with [ErrWouldMove] if a is no [Resizer].
//
// [Reserved] resizes any block up to a size that it has reserved for it. [System] shrinks blocks
// by pages, and lets them grow while the address space behind them is free. The others have
// what rounding a size up has left, and [Bump], [Fixed] and [Scoped] what is behind the newest
// block.
func Resize(a Allocator, b Block, size uintptr) (Block, error) {
	if r, ok := a.(Resizer); ok {
		return r.Resize(b, size)
	}
	_, err := checkResize(b, size)
	if err == nil {
		err = fmt.Errorf("%w: %T never does: use Reallocate", ErrWouldMove, a)
	}
	return b, fmt.Errorf("blockalloc: Resize(%v, %d): %w", b, size, err)
}

// errRemap is wrapped by an error of Resize if Reallocate moves the block without copying it: never are
// there two.
var errRemap = fmt.Errorf("%w: its pages can move to another address", ErrWouldMove)

// errCopy is the error of a Resize that only Reallocate can do.
var errCopy = fmt.Errorf("%w: use Reallocate, which copies it", ErrWouldMove)

// checkResize returns the layout that b is to have, or why it cannot.
func checkResize(b Block, size uintptr) (Layout, error) {
	switch {
	case b.IsZero():
		return Layout{}, errEmptyReallocate
	case size == 0:
		return Layout{}, fmt.Errorf("%w: size 0: use Free", ErrBadLayout)
	}
	l := b.layout(size)
	return l, l.Check()
}
