package blockalloc

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/pages"
)

// Reallocate keeps b in place if Resize can. If not, it moves the pages to another address on
// Linux, by mremap, which copies nothing: at a cost that does not depend on the size, up to
// address space of half the size for the next times. Elsewhere it copies b into a new block.
// A block that grows by steps so costs what its pages cost.
func (s *System) Reallocate(b Block, size uintptr) (Block, error) {
	if b.IsZero() {
		return b, reallocateError("System", b, size, errEmptyReallocate)
	}
	n, err := s.reallocate(b, size)
	if err != nil {
		return b, reallocateError("System", b, size, err)
	}
	return n, nil
}

func (s *System) reallocate(b Block, size uintptr) (Block, error) {
	l := b.layout(size)
	if err := l.Check(); err != nil {
		return b, err
	}
	raw := b
	b, err := s.live.check(b)
	if err != nil {
		return b, err
	}
	if size == 0 {
		return move(s, b, 0)
	}
	b.align |= raw.align & zeroed
	l.Zeroed = b.isZeroed()
	n, err := s.resize(b, l)
	switch {
	case errors.Is(err, errRemap):
		n, err = s.remap(b, l)
	case errors.Is(err, ErrWouldMove):
		n, err = move(s, b, size)
	}
	if err == nil {
		n.clearSlack(raw, b)
	}
	return n, err
}

// Resize shrinks b by whole pages, on Unix, or lets it grow if the address space behind
// it is free: that is most often so if it was there that Reallocate has moved it before, and is
// never so on Windows. Pages that are added are zeroed, and the options apply to them.
func (s *System) Resize(b Block, size uintptr) (Block, error) {
	l, err := checkResize(b, size)
	if err != nil {
		return b, resizeError("System", b, size, err)
	}
	live, err := s.live.check(b)
	if err != nil {
		return b, resizeError("System", b, size, err)
	}
	live.align |= b.align & zeroed
	l.Zeroed = live.isZeroed()
	n, err := s.resize(live, l)
	if err != nil {
		return b, resizeError("System", b, size, err)
	}
	n.clearSlack(b, live)
	return n, nil
}

// resize is Resize of a live block, as it was granted.
func (s *System) resize(b Block, l Layout) (Block, error) {
	granted := roundUp(l.Size, pageSize)
	n := grant(b.ptr, granted, l)
	if granted == b.size {
		s.live.resized(n)
		return n, nil
	}
	if granted < b.size && !pages.CanShrink {
		return b, errCopy
	}
	// Meanwhile b is not live, so that a free by mistake does not unmap it.
	if _, err := s.live.take(b); err != nil {
		return b, err
	}
	var err error
	if granted < b.size {
		err = pages.Unmap(unsafe.Add(b.ptr, granted), b.size-granted)
	} else if err = pages.Extend(b.ptr, b.size, granted); err != nil {
		err = wouldMove(err)
	} else {
		s.applyAdded(n, b.size)
	}
	if err != nil {
		s.live.add(b, struct{}{})
		return b, err
	}
	s.live.add(n, struct{}{})
	return n, nil
}

// wouldMove is the error for a block that cannot grow in place because of err.
func wouldMove(err error) error {
	switch {
	case pages.CanRemap && errors.Is(err, pages.ErrOccupied):
		return errRemap
	case errors.Is(err, pages.ErrOccupied), errors.Is(err, errors.ErrUnsupported):
		return errCopy
	}
	return fmt.Errorf("%w: %w", errCopy, err)
}

// remap moves the pages of b to another address, where there are more. The old address may be that of
// another goroutine's block before this returns: so b is no longer live then.
func (s *System) remap(b Block, l Layout) (Block, error) {
	if _, err := s.live.take(b); err != nil {
		return b, err
	}
	granted := roundUp(l.Size, pageSize)
	p, err := pages.Remap(b.ptr, b.size, granted, max(l.Align, pageSize))
	if err != nil {
		s.live.add(b, struct{}{})
		return b, fmt.Errorf("%w: %w", ErrOutOfMemory, err)
	}
	n := grant(p, granted, l)
	s.applyAdded(n, b.size)
	s.live.add(n, struct{}{})
	return n, nil
}

// applyAdded applies the options to what a live block has grown by. Pages that Linux has added to a
// mapping are named, advised and locked as those before; they are not touched.
func (s *System) applyAdded(n Block, old uintptr) {
	added := Block{ptr: unsafe.Add(n.ptr, old), size: n.size - old}
	if !pages.CanRemap {
		s.apply(added)
	} else if s.Populate {
		s.applyOne(optionPopulate, added)
	}
}
