package blockalloc

import "fmt"

// Resize resizes b in place by the inner allocator, if that is a [Resizer] and what is added stays within
// the bound.
func (l *Limit) Resize(b Block, size uintptr) (Block, error) {
	layout, err := checkResize(b, size)
	if err != nil {
		return b, resizeError("Limit", b, size, err)
	}
	live := b
	if b.IsRaw() {
		if live, err = Granted(l.inner, b); err != nil {
			return b, resizeError("Limit", b, size, err)
		}
	}
	n, err := l.resize(layout, live)
	if err != nil {
		return b, err
	}
	return n, nil
}

// resize resizes b in place. Only the bytes that are added are reserved.
func (l *Limit) resize(layout Layout, b Block) (Block, error) {
	added := max(0, int64(layout.Size)-int64(b.size))
	if err := l.reserveFor(layout, b, added); err != nil {
		return b, err
	}
	unused := added // as in allocate
	defer func() { l.settle(unused) }()
	n, err := Resize(l.inner, b, layout.Size)
	if err != nil {
		return b, err
	}
	unused = added - (int64(n.size) - int64(b.size))
	if unused >= 0 {
		return n, nil
	}
	slack := -unused
	free, ok := l.bound.reserve(slack)
	if ok {
		unused = 0
		return n, nil
	}
	if _, err := Resize(l.inner, n, b.size); err != nil {
		return n, nil // the block has grown: its slack is counted above the bound
	}
	unused = added
	return b, l.bound.refusalToGrow(layout, b, added+slack, free+added)
}

// remap has the inner allocator move b by its pages. It grants whole pages, and never has two
// blocks: only the pages that are added are reserved.
func (l *Limit) remap(layout Layout, b Block) (Block, error) {
	added := int64(roundUp(layout.Size, pageSize)) - int64(b.size)
	if err := l.reserveFor(layout, b, added); err != nil {
		return b, err
	}
	unused := added
	defer func() { l.settle(unused) }()
	n, err := l.inner.Reallocate(b, layout.Size)
	if err != nil {
		return n, err
	}
	unused = added - (int64(n.size) - int64(b.size))
	return n, nil
}

// reserveFor reserves what b is to grow by.
func (l *Limit) reserveFor(layout Layout, b Block, added int64) error {
	if added == 0 {
		return nil
	}
	free, ok := l.bound.reserve(added)
	switch {
	case ok:
		return nil
	case l.owner != nil && !l.owner.Owns(b):
		return reallocateError("Limit", b, layout.Size, errUnknown)
	}
	return l.bound.refusalToGrow(layout, b, added, free)
}

// settle releases what was reserved too much, or if that is less than zero counts what is missing, above the
// bound if need be.
func (l *Limit) settle(unused int64) {
	switch {
	case unused > 0:
		l.bound.release(unused)
	case unused < 0:
		l.bound.free.Add(unused)
	}
}

// refusalToGrow is the error for a block that cannot grow by so many bytes, of which free were left.
func (s *bound) refusalToGrow(layout Layout, b Block, added, free int64) error {
	what := fmt.Sprintf("%d B requested, %d B more than the block has", layout.Size, added)
	return reallocateError("Limit", b, layout.Size, s.refusalOf(what, int64(b.size)+added, free))
}
