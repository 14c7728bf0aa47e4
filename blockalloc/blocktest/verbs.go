package blocktest

import (
	"errors"
	"fmt"
	"slices"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// do does o, with the block that it picks if it needs one.
func (m *model) do(o operation) error {
	v := m.verbs[int(o[0])%len(m.verbs)]
	if v == allocateSome && len(m.live) >= maxModelLive {
		v = freeSome
	}
	var b *modelBlock
	switch v {
	case freeSome, reallocateSome, reallocateRaw, reallocateZero, reallocateBad, freeWrongSize, freePart, freePastTheEnd, askOwner, roundTrip:
		free := m.live[m.frozen:]
		if len(free) == 0 {
			return nil
		}
		b = free[len(free)-1]
		if !m.lifo {
			b = free[o.pick(len(free))]
		}
	}
	switch v {
	case allocateSome:
		l := layout(o.size(m.size, m.MaxSize), o.align(m.size, m.fit(64<<10)))
		l.Zeroed = o[1] < 64
		return m.allocate(l)
	case allocateZero:
		return m.allocateZero(layout(0, o.align(m.size, m.fit(64<<10))))
	case allocateBad:
		return m.allocateRefused(badLayouts[int(o[2])%len(badLayouts)], blockalloc.ErrBadLayout)
	case allocateTooMuch:
		if m.tooMuchFits() {
			return nil
		}
		return m.allocateRefused(layout(tooMuch, o.align(m.size, m.size)), nil)
	case reallocateSome:
		if r, ok := m.a.(blockalloc.Resizer); ok && o[4]%2 == 1 {
			return m.resize(r, b, o.size(m.size, m.MaxSize))
		}
		return m.reallocate(b, b.Block, o.size(m.size, m.MaxSize))
	case reallocateRaw:
		raw, err := b.raw(uintptr(o[4]%3) * (b.Size() - b.Requested()) / 2)
		if err != nil {
			return err
		}
		return m.reallocate(b, raw, o.size(m.size, m.MaxSize))
	case reallocateZero:
		return m.release(b, true)
	case reallocateBad:
		return m.reallocateRefused(b, o)
	case reallocateEmpty:
		m.logf("Reallocate(empty block, %d)", o.size(m.size, m.size))
		if n, err := m.a.Reallocate(blockalloc.Block{}, o.size(m.size, m.size)); !errors.Is(err, blockalloc.ErrBadLayout) || !n.IsZero() {
			return fmt.Errorf("Reallocate of the empty block = %v, %v; want the empty block and ErrBadLayout", n, err)
		}
	case freeSome:
		return m.release(b, false)
	case freeAll:
		if o[2] < 64 { // not so often that few blocks are ever live
			return m.empty()
		}
	case freeAgain:
		if len(m.gone) > 0 {
			return m.refuse(m.gone[int(o[1])%len(m.gone)], o)
		}
	case freeForeign:
		return m.refuse(m.foreign, o)
	case freeWrongSize:
		return m.refuseRaw(b, 0, b.Size()+1+o.size(m.size, b.Size()), o)
	case freePart:
		return m.refuseRaw(b, min(o.size(m.size, m.size), b.Size()-1), o.align(m.size, m.size), o)
	case freePastTheEnd:
		// Without guards behind it, the garbage collector may refuse a pointer to that
		// address and end the process.
		if _, ok := m.places.find(b.Addr() + b.Size()); ok || m.parent != nil {
			return m.refuseRaw(b, b.Size(), o.align(m.size, m.size), o)
		}
	case askOwner:
		m.logf("Owns(%v)", b)
		return m.owns(b.Block, true)
	case roundTrip:
		return m.roundTrip(b)
	default:
		return m.own(m.Steps[v-firstStep], o)
	}
	return nil
}

func (m *model) allocate(l blockalloc.Layout) error {
	failures := m.failures()
	m.logf("b%d = Allocate(%v)", m.number+1, l)
	b, err := m.a.Allocate(l)
	if err != nil {
		if err := m.excused(err, failures, l, nil); err != nil {
			return fmt.Errorf("Allocate(%v): %w", l, err)
		}
		m.logf("\trefused: %v", err)
		if !b.IsZero() {
			return fmt.Errorf("Allocate(%v) = %v with the error %w", l, b, err)
		}
		if m.disordered && outOfRoom(err) && m.failures() == failures {
			if m.refusals++; m.refusals == maxRefusals {
				return m.restart()
			}
		}
		return nil
	}
	if m.Zeroed || l.Zeroed {
		if err := cleared(b); err != nil {
			return err
		}
	}
	m.number++
	return m.add(&modelBlock{b, m.number, l})
}

func (m *model) allocateZero(l blockalloc.Layout) error {
	m.logf("Allocate(%v)", l)
	b, err := m.a.Allocate(l)
	if err != nil || !b.IsZero() {
		return fmt.Errorf("Allocate(%v) = %v, %v; want the empty block", l, b, err)
	}
	return m.a.Free(b)
}

// allocateRefused expects the error want, or if that is nil, that there is no room.
func (m *model) allocateRefused(l blockalloc.Layout, want error) error {
	m.logf("Allocate(%v)", l)
	b, err := m.a.Allocate(l)
	if !b.IsZero() || want == nil && !outOfRoom(err) || want != nil && !errors.Is(err, want) {
		return fmt.Errorf("Allocate(%v) = %v, %v; want it refused", l, b, err)
	}
	return nil
}

// raw makes the block of its pointer and a size: so many bytes more than were asked for.
func (b *modelBlock) raw(more uintptr) (blockalloc.Block, error) {
	given := b.Block
	p, l := given.IntoRaw()
	l.Size += more
	return blockalloc.FromRaw(p, l)
}

// reallocate reallocates b, which is given as it is or raw.
func (m *model) reallocate(b *modelBlock, given blockalloc.Block, size uintptr) error {
	failures, newest := m.failures(), b == m.live[len(m.live)-1]
	if given.IsRaw() {
		m.logf("Reallocate(FromRaw of %v with %d B, %d)", b, given.Size(), size)
	} else {
		m.logf("Reallocate(%v, %d)", b, size)
	}
	n, err := m.a.Reallocate(given, size)
	if err != nil {
		var replaced *modelBlock
		if newest && m.Arena {
			replaced = b
		}
		// A wrapper of what is no Finder may say that it does not know what was granted: see freeRaw.
		unknown := given.IsRaw() && m.finder == nil && errors.Is(err, errors.ErrUnsupported) && errors.Is(err, blockalloc.ErrNotOwned)
		if err := m.excused(err, failures, layout(size, b.Align()), replaced); err != nil && !unknown {
			return fmt.Errorf("Reallocate(%v, %d): %w", given, size, err)
		}
		m.logf("\trefused: %v", err)
		return m.unchanged(b, given, n)
	}
	if err := filled(n, min(given.Size(), size), b.number); err != nil {
		return fmt.Errorf("Reallocate(%v, %d) lost content: %w", given, size, err)
	}
	if n.IsRaw() {
		return fmt.Errorf("Reallocate(%v, %d) = %v, which is as FromRaw made it: make it by NewBlock with the layout that was asked for", given, size, n)
	}
	asked := b.asked
	asked.Size = size
	if asked.Zeroed {
		if err := clearedFrom(n, given.Size()); err != nil {
			return fmt.Errorf("Reallocate(%v, %d): %w", given, size, err)
		}
	}
	old, at := b.Block, slices.Index(m.live, b)
	m.remove(b)
	b = &modelBlock{n, b.number, asked}
	if err := m.add(b); err != nil {
		return err
	}
	if n.Addr() == old.Addr() && !newest { // it has kept its place in the order
		m.live = slices.Insert(m.live[:len(m.live)-1], at, b)
	}
	if n != old {
		m.bury(old)
		m.disordered = m.disordered || m.Arena && !newest
		if m.places.has(old) {
			return nil
		}
		return m.owns(old, false)
	}
	return nil
}

// unchanged checks a block after an operation on it, given as it is or raw, failed and returned n.
func (m *model) unchanged(b *modelBlock, given, n blockalloc.Block) error {
	if n != given {
		return fmt.Errorf("a failed Reallocate of %v returned %v", given, n)
	}
	if err := filled(b.Block, given.Size(), b.number); err != nil {
		return fmt.Errorf("%v was written over: %w", b, err)
	}
	fill(b.Block, b.Size(), b.number) // what lies behind a raw block may be cleared
	return m.owns(b.Block, true)
}

// tooMuchFits reports whether 32 bits of address space may have room for tooMuch.
func (m *model) tooMuchFits() bool { return ^uintptr(0)>>32 == 0 && !m.Bounded }

func (m *model) reallocateRefused(b *modelBlock, o operation) error {
	size := []uintptr{^uintptr(0), top, tooMuch}[int(o[2])%3]
	want := blockalloc.ErrBadLayout
	if size == tooMuch {
		if m.tooMuchFits() {
			return nil
		}
		want = nil
	}
	m.logf("Reallocate(%v, %d)", b, size)
	n, err := m.a.Reallocate(b.Block, size)
	if want == nil && !outOfRoom(err) || want != nil && !errors.Is(err, want) {
		return fmt.Errorf("Reallocate(%v, %d) = %v, %v; want it refused", b.Block, size, n, err)
	}
	return m.unchanged(b, b.Block, n)
}

// release frees b, by a reallocation to zero if reallocate is set.
func (m *model) release(b *modelBlock, reallocate bool) error {
	if err := m.intact(b); err != nil {
		return err
	}
	failures, newest := m.failures(), b == m.live[len(m.live)-1]
	var err error
	n := b.Block
	if reallocate {
		m.logf("Reallocate(%v, 0)", b)
		n, err = m.a.Reallocate(b.Block, 0)
	} else {
		m.logf("Free(%v)", b)
		err = m.a.Free(b.Block)
	}
	if err != nil {
		if !m.injected(err, failures) {
			return fmt.Errorf("free of %v: %w", b.Block, err)
		}
		m.logf("\trefused: %v", err)
		return m.unchanged(b, b.Block, n) // a block whose Free failed is live
	}
	if reallocate && !n.IsZero() {
		return fmt.Errorf("Reallocate(%v, 0) = %v, want the empty block", b.Block, n)
	}
	m.remove(b)
	m.bury(b.Block)
	m.disordered = m.disordered || m.Arena && !newest
	return m.owns(b.Block, false)
}

// refuse checks that b, which is not live, is refused.
func (m *model) refuse(b blockalloc.Block, o operation) error {
	if m.places.has(b) { // it has been handed out again
		return nil
	}
	if err := m.owns(b, false); err != nil {
		return err
	}
	if variant := o[3] % 8; variant < 4 {
		size := [...]uintptr{b.Size(), 2 * b.Size(), b.Size() / 2, 0}[variant]
		m.logf("Reallocate(%v, which is not live, %d)", b, size)
		return refusedReallocate(m.a, b, size)
	}
	m.logf("Free(%v, which is not live)", b)
	return refusedFree(m.a, b)
}

// refuseRaw is refuse for a block that begins offset bytes after b.
func (m *model) refuseRaw(b *modelBlock, offset, size uintptr, o operation) error {
	r, err := at(b.Block, offset, size)
	if err != nil {
		return err
	}
	for _, l := range m.live {
		if l.Addr() == r.Addr() && r.Size() <= l.Size() { // it may be taken for one of a request for less
			return nil
		}
	}
	return m.refuse(r, o)
}

func (m *model) roundTrip(b *modelBlock) error {
	m.logf("IntoRaw and FromRaw of %v", b)
	given := b.Block
	p, l := given.IntoRaw()
	if !given.IsZero() {
		return fmt.Errorf("after IntoRaw the block is %v", given)
	}
	if err := m.a.Free(given); err != nil {
		return fmt.Errorf("Free of the empty block: %w", err)
	}
	back, err := blockalloc.FromRaw(p, l)
	if err != nil || back.Pointer() != p || back.Layout() != l || l.Size != b.Requested() {
		return fmt.Errorf("FromRaw(%#x, %v) = %v, %v; want %d bytes of %v", uintptr(p), l, back, err, b.Requested(), b.Block)
	}
	return m.owns(back, true)
}
