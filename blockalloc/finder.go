package blockalloc

import (
	"errors"
	"fmt"
	"unsafe"
)

// A Finder is an [Allocator] that knows the block of a pointer. C's free has no more than that, and so have
// a virtual machine that needs the object of a pointer to a field, and a conservative garbage
// collector.
//
// Find returns the live block that holds the byte at p, any pointer, as it was granted: with the size and the alignment
// that were asked for. It does not follow p. It takes a time that does not grow with the number of blocks, as each
// implementation says. Past the end of a block, in a freed one and in foreign memory it finds none. If
// the block is allocated or freed meanwhile, the answer is that of one moment during the call.
//
// A wrapper finds what its inner allocator finds. [FinderOf] finds a Finder.
type Finder interface {
	Find(p unsafe.Pointer) (Block, bool)
}

var (
	_ Finder = (*System)(nil)
	_ Finder = (*Pool)(nil)
	_ Finder = (*Slab)(nil)
	_ Finder = (*Heap)(nil)
	_ Finder = (*Fixed)(nil)
	_ Finder = (*Bump)(nil)
	_ Finder = (*Scoped)(nil)
	_ Finder = (*FreeList)(nil)
	_ Finder = Null{}
	_ Finder = (*Fallback)(nil)
	_ Finder = (*Segregate)(nil)
	_ Finder = (*Limit)(nil)
	_ Finder = (*Locked)(nil)
)

// FinderOf returns a as a Finder. A wrapper is one if all that it wraps are, as with [OwnerOf].
func FinderOf(a Allocator) (Finder, bool) {
	switch w := a.(type) {
	case interface{ Unwrap() Allocator }:
		if _, ok := FinderOf(w.Unwrap()); !ok {
			return nil, false
		}
	case interface{ Unwrap() []Allocator }:
		for _, inner := range w.Unwrap() {
			if _, ok := FinderOf(inner); !ok {
				return nil, false
			}
		}
	}
	f, ok := a.(Finder)
	return f, ok
}

// findIn returns what a finds, nothing if it is no Finder.
func findIn(a Allocator, p unsafe.Pointer) (Block, bool) {
	if f, ok := a.(Finder); ok {
		return f.Find(p)
	}
	return Block{}, false
}

// Granted is for wrappers that count bytes, or deliver them, before a block goes back to the inner
// allocator a. It returns a block of a that [FromRaw] made as a has granted it, by Find. Other blocks come back as
// they are, and so do blocks that are not live, which a will refuse. What lies behind a zeroed block is cleared.
//
// If a is no [Finder], what it has granted is not known. The error wraps [ErrNotOwned] and [errors.ErrUnsupported]: to go
// on would make counts wrong, and bounds ever narrower. Free the Block that was allocated, or give the allocator a
// Find method. An allocator of your own makes its blocks by [NewBlock], and not by FromRaw.
//
// On a hot path, ask [Block.IsRaw] first: that is one comparison.
func Granted(a Allocator, b Block) (Block, error) {
	if !b.IsRaw() || b.IsZero() {
		return b, nil
	}
	if live, ok := findIn(a, b.ptr); ok {
		if !b.Is(live) {
			return b, nil
		}
		if b.isZeroed() { // what lies behind b may have been used, and is what a Reallocate adds
			clear(live.Bytes()[b.size:])
			live.align |= zeroed
		}
		return live, nil
	}
	if no := noFinder(a); no != nil {
		return b, fmt.Errorf("%w: %w: FromRaw made it, and %T, which is no Finder, cannot tell how much it granted: free the Block that was allocated, or give the allocator a Find method and make its blocks by NewBlock",
			ErrNotOwned, errors.ErrUnsupported, no)
	}
	return b, nil
}

// noFinder returns the first of a and the allocators that it wraps that has no Find method, nil if all have.
func noFinder(a Allocator) Allocator {
	if _, ok := FinderOf(a); ok {
		return nil
	}
	if _, ok := a.(Finder); ok {
		for inner := range Inner(a) {
			if no := noFinder(inner); no != nil {
				return no
			}
		}
	}
	return a
}
