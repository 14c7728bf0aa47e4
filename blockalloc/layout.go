package blockalloc

import (
	"fmt"
	"math/bits"
)

// maxSize bounds a block and its alignment, in bytes. With 64-bit addresses, it is the
// widest address space that Go runs in. With 32 bits, it is what still fits an int once
// it is rounded up to pages.
const (
	wide    = ^uintptr(0) >> 63 // 1 if a uintptr has 64 bits
	maxSize = wide<<48 | (1-wide)*(1<<31-1<<16)
)

// A Layout is a request to an [Allocator]: a size and an alignment, both in bytes. The
// alignment must be a power of two; the size need not be.
type Layout struct {
	Size, Align uintptr

	// Zeroed asks for memory that is zero, as calloc does: all bytes of the block, also those
	// that are granted beyond Size, and those that Reallocate adds to it later, from its
	// Block.Size to that of the new one. A block that shrinks in place keeps its Block.Size
	// and all bytes, where as much stays granted: clear what is to be used again as new.
	// Memory that is known to be clean, such as fresh pages, is not cleared again, nor touched.
	Zeroed bool
}

// BlockLayout returns the Layout of a block that is aligned to its own size, in bytes,
// which must be a power of two.
func BlockLayout(size uintptr) Layout { return Layout{Size: size, Align: size} }

// Check returns an error that wraps [ErrBadLayout] if the alignment is not a power of
// two, or if either exceeds the address space.
func (l Layout) Check() error {
	switch {
	case l.Align == 0 || l.Align&(l.Align-1) != 0:
		return fmt.Errorf("%w: alignment %d is not a power of two: use %s", ErrBadLayout, l.Align, nearPowers(l.Align))
	case l.Size >= maxSize || l.Align >= maxSize:
		return fmt.Errorf("%w: %v is larger than the address space: use less than %d bytes", ErrBadLayout, l, uintptr(maxSize))
	}
	return nil
}

// ok is Check without the error: short enough to be inlined.
func (l Layout) ok() bool {
	return l.Size < maxSize && l.Align-1 < maxSize-1 && l.Align&(l.Align-1) == 0
}

// String returns, for example, "4096 B aligned to 4096", or "4096 B aligned to 4096, zeroed".
func (l Layout) String() string {
	if l.Zeroed {
		return fmt.Sprintf("%d B aligned to %d, zeroed", l.Size, l.Align)
	}
	return fmt.Sprintf("%d B aligned to %d", l.Size, l.Align)
}

// nearPowers names the powers of two around n.
func nearPowers(n uintptr) string {
	if n == 0 {
		return "1 or more"
	}
	low := bits.Len(uint(n)) - 1
	if low == bits.UintSize-1 {
		return fmt.Sprint(uintptr(1) << low)
	}
	return fmt.Sprintf("%d or %d", uintptr(1)<<low, uintptr(2)<<low)
}

// roundUp rounds n up to a multiple of align, a power of two. It cannot
// overflow for a Layout that passed Check.
func roundUp(n, align uintptr) uintptr { return (n + align - 1) &^ (align - 1) }
