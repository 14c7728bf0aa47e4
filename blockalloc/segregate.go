package blockalloc

import (
	"fmt"
	"unsafe"
)

// Segregate is an [Allocator] of two, by size: requests up to a threshold go to the
// small allocator, larger ones to the large one. If that fails, so does Segregate:
// combine it with [Fallback] if the other is to serve then.
//
// A block goes back to where it came from. Its size cannot say where that is, because
// more may be granted than was asked for. So the small allocator must be an [Owner],
// and the two must not share an allocator below, as with a [Fallback]. A reallocation
// across the threshold moves the block; if the large allocator is no Owner, a block
// that shrinks stays there. An unknown block is refused with [ErrNotOwned], or with
// [ErrDoubleFree] if one of them knows that it was freed.
//
// Memory is zeroed as by the allocator that serves it, also when a block moves. Several goroutines may
// use a Segregate at once if they may use both. It costs no memory and a comparison to
// allocate. Reallocate and Free cost a call of the small allocator's Owns.
type Segregate struct {
	pair      pair // small and large
	threshold uintptr
}

var (
	_ Allocator = (*Segregate)(nil)
	_ Owner     = (*Segregate)(nil)
	_ Resizer   = (*Segregate)(nil)
	_ Rewrapper = (*Segregate)(nil)
)

// NewSegregate returns an allocator that takes blocks of up to threshold bytes from
// small and others from large. It panics if either is nil or if small is no Owner by
// [OwnerOf].
func NewSegregate(small, large Allocator, threshold uintptr) *Segregate {
	return &Segregate{newPair("NewSegregate", small, large, "small", "large"), threshold}
}

// Allocate allocates from the allocator for blocks of l.Size bytes.
func (s *Segregate) Allocate(l Layout) (Block, error) {
	if l.Size <= s.threshold {
		return s.pair.first.Allocate(l)
	}
	return s.pair.second.Allocate(l)
}

// Reallocate reallocates b in its allocator, or moves it to the other one if size is on
// the other side of the threshold.
func (s *Segregate) Reallocate(b Block, size uintptr) (Block, error) {
	p := &s.pair
	isSmall := p.firstOwner.Owns(b)
	switch toSmall := size <= s.threshold; {
	case b.IsZero():
		return b, reallocateError("Segregate", b, size, errEmptyReallocate)
	case isSmall && toSmall:
		return p.first.Reallocate(b, size)
	case isSmall:
		return migrate(b, size, p.first, p.second)
	case toSmall && size > 0 && p.secondOwner != nil && p.secondOwner.Owns(b):
		return migrate(b, size, p.second, p.first)
	}
	n, err := p.second.Reallocate(b, size)
	if err != nil && isUnknown(err) {
		n, err2 := p.first.Reallocate(b, size)
		return n, unknownError(err2, err)
	}
	return n, err
}

// Resize resizes b in place where it came from, if that is a [Resizer]: also across the threshold.
func (s *Segregate) Resize(b Block, size uintptr) (Block, error) { return s.pair.resize(b, size) }

// Free gives b back to where it came from.
func (s *Segregate) Free(b Block) error { return s.pair.free(b) }

// Owns reports whether b is a live block of the small allocator, or of the large one if
// that is an Owner.
func (s *Segregate) Owns(b Block) bool { return s.pair.owns(b) }

// Find returns the block that one of the two finds.
func (s *Segregate) Find(p unsafe.Pointer) (Block, bool) { return s.pair.find(p) }

// Unwrap returns the small and the large allocator.
func (s *Segregate) Unwrap() []Allocator { return s.pair.unwrap() }

// Rewrap returns a Segregate of other views of the two.
func (s *Segregate) Rewrap(view func(Allocator) Allocator) Allocator {
	return &Segregate{s.pair.rewrap(view), s.threshold}
}

// String returns, for example, "Segregate at 4096 B".
func (s *Segregate) String() string { return fmt.Sprintf("Segregate at %d B", s.threshold) }
