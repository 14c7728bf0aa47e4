package blockalloc

import (
	"errors"
	"fmt"
	"unsafe"
)

// Fallback is an [Allocator] that asks a second one if the first fails, for whatever
// reason. A bad layout is returned at once. If both fail, the error wraps both of
// theirs.
//
// A block goes back to where it came from: the first must be an [Owner], the second
// need not be. The two must not share an allocator below, as a Limit of a pool and that
// pool would: each would own blocks of the other. A block that neither owns is refused
// with [ErrNotOwned], or with [ErrDoubleFree] if one of them knows that it was freed. A
// second that is no Owner must itself refuse unknown blocks.
//
// If a block's own allocator cannot reallocate it, the block moves to the other one. If
// the old block cannot be freed then, that is undone.
//
// Memory is zeroed as by the allocator that serves it, also when a block moves. Several goroutines may
// use a Fallback at once if they may use both. It costs no memory. Reallocate and Free
// cost a call of the first's Owns: a lock and a look-up for [Heap] and [System]. A
// failure of the first costs its error, which most often takes longer than an
// allocation.
type Fallback struct {
	pair pair
}

var (
	_ Allocator = (*Fallback)(nil)
	_ Owner     = (*Fallback)(nil)
	_ Resizer   = (*Fallback)(nil)
	_ Rewrapper = (*Fallback)(nil)
)

// NewFallback returns an allocator that asks first, and second if that fails. It panics
// if either is nil or if first is no Owner by [OwnerOf].
func NewFallback(first, second Allocator) *Fallback {
	return &Fallback{newPair("NewFallback", first, second, "first", "second")}
}

// Allocate allocates from the first, or from the second if that fails.
func (f *Fallback) Allocate(l Layout) (Block, error) {
	b, err := f.pair.first.Allocate(l)
	if err == nil || errors.Is(err, ErrBadLayout) {
		return b, err
	}
	b, err2 := f.pair.second.Allocate(l)
	if err2 != nil {
		return Block{}, bothFailed(err, err2)
	}
	return b, nil
}

// Reallocate reallocates b where it came from, or else moves it to the other allocator.
func (f *Fallback) Reallocate(b Block, size uintptr) (Block, error) {
	if b.IsZero() {
		return b, reallocateError("Fallback", b, size, errEmptyReallocate)
	}
	p := &f.pair
	inFirst := p.firstOwner.Owns(b) // this does not change during the call: the caller has b
	from, to, owner := p.second, p.first, p.secondOwner
	if inFirst {
		from, to, owner = p.first, p.second, p.firstOwner
	}
	n, err := from.Reallocate(b, size)
	switch {
	case err == nil, errors.Is(err, ErrBadLayout):
		return n, err
	case isUnknown(err) || owner != nil && !owner.Owns(b): // there may be no memory to copy from
		if inFirst {
			return b, err
		}
		n, err2 := p.first.Reallocate(b, size)
		return n, unknownError(err2, err)
	case size == 0:
		return b, err
	}
	n, err2 := migrate(b, size, from, to)
	if err2 != nil {
		return b, bothFailed(err, err2)
	}
	return n, nil
}

// Resize resizes b in place where it came from, if that is a [Resizer].
func (f *Fallback) Resize(b Block, size uintptr) (Block, error) { return f.pair.resize(b, size) }

// Free gives b back to where it came from.
func (f *Fallback) Free(b Block) error { return f.pair.free(b) }

// Owns reports whether b is a live block of the first, or of the second if that is an
// Owner.
func (f *Fallback) Owns(b Block) bool { return f.pair.owns(b) }

// Find returns the block that one of the two finds, that of the first if both do.
func (f *Fallback) Find(p unsafe.Pointer) (Block, bool) { return f.pair.find(p) }

// Unwrap returns the first and the second allocator.
func (f *Fallback) Unwrap() []Allocator { return f.pair.unwrap() }

// Rewrap returns a Fallback of other views of the two.
func (f *Fallback) Rewrap(view func(Allocator) Allocator) Allocator {
	return &Fallback{f.pair.rewrap(view)}
}

// String returns "Fallback".
func (f *Fallback) String() string { return "Fallback" }

// pair is two allocators. The first is an Owner, so that each block goes back to where
// it came from.
type pair struct {
	first, second           Allocator
	firstOwner, secondOwner Owner // the second is nil if that is no Owner
}

// newPair panics in the name of constructor, whose parameters have the given names.
func newPair(constructor string, first, second Allocator, firstName, secondName string) pair {
	needAllocator(fmt.Sprintf("%s(nil, %s)", constructor, secondName), first)
	needAllocator(fmt.Sprintf("%s(%s, nil)", constructor, firstName), second)
	p := pair{first: first, second: second}
	var ok bool
	if p.firstOwner, ok = OwnerOf(first); !ok {
		panic(fmt.Sprintf("blockalloc: %s: %s is a %T, which is no Owner: pass one that knows its own blocks", constructor, firstName, first))
	}
	p.secondOwner, _ = OwnerOf(second)
	return p
}

func (p *pair) owns(b Block) bool {
	return p.firstOwner.Owns(b) || p.secondOwner != nil && p.secondOwner.Owns(b)
}

func (p *pair) find(ptr unsafe.Pointer) (Block, bool) {
	if b, ok := findIn(p.first, ptr); ok {
		return b, true
	}
	return findIn(p.second, ptr)
}

// free gives b back to where it came from. While its owner is in this call, the first
// cannot lose or gain a live block. For any other block the answer may be out of date
// at once, and the allocator that is asked refuses it.
func (p *pair) free(b Block) error {
	if b.IsZero() {
		return nil
	}
	if p.firstOwner.Owns(b) {
		return p.first.Free(b)
	}
	err := p.second.Free(b)
	if err != nil && isUnknown(err) {
		return unknownError(p.first.Free(b), err)
	}
	return err
}

// resize resizes b where it came from, as free frees it.
func (p *pair) resize(b Block, size uintptr) (Block, error) {
	if p.firstOwner.Owns(b) {
		return Resize(p.first, b, size)
	}
	n, err := Resize(p.second, b, size)
	if err != nil && isUnknown(err) {
		n, err2 := Resize(p.first, b, size)
		return n, unknownError(err2, err)
	}
	return n, err
}

func (p *pair) unwrap() []Allocator { return []Allocator{p.first, p.second} }

func (p *pair) rewrap(view func(Allocator) Allocator) pair {
	v := *p // the owners stay: views own the same blocks
	v.first, v.second = view(p.first), view(p.second)
	return v
}

// migrate moves b, a live block of from, to the other allocator. If anything fails, b
// is unchanged.
func migrate(b Block, size uintptr, from, to Allocator) (Block, error) {
	n, err := to.Allocate(b.layout(size))
	if err != nil {
		return b, err
	}
	copy(n.Bytes(), b.Bytes())
	if err := replace(from, b, to, n); err != nil {
		return b, err
	}
	return n, nil
}

// isUnknown reports whether an allocator answered err because the block is not live
// there.
func isUnknown(err error) bool { return errors.Is(err, ErrNotOwned) || errors.Is(err, ErrDoubleFree) }

// unknownError is the error for a block that both allocators refused: that it was
// freed, if one of them knows that.
func unknownError(first, second error) error {
	switch {
	case first == nil || errors.Is(first, ErrDoubleFree):
		return first
	case errors.Is(second, ErrDoubleFree):
		return second
	}
	return bothFailed(first, second)
}

// bothFailed joins two failures in a row on one line.
func bothFailed(err, next error) error { return fmt.Errorf("%w; then %w", err, next) }
