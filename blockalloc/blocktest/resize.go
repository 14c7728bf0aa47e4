package blocktest

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// resizeInPlace changes the size of a block between two others, in place or not at all.
func (s suite) resizeInPlace(t *testing.T) {
	a := s.New(t)
	r, ok := a.(blockalloc.Resizer)
	if !ok {
		t.Logf("%T is no Resizer", a)
		return
	}
	before := allocate(t, a, layout(s.size, 1))
	b := allocate(t, a, layout(s.size, 1))
	fill(before, before.Size(), 1)
	for i, size := range []uintptr{s.size, s.size / 2, s.size, s.size + 1, 3 * s.size, 64 * s.size, s.size, 1, s.size} {
		fill(b, b.Size(), i)
		n, err := r.Resize(b, min(size, s.MaxSize))
		if err := s.resized(a, b, n, min(size, s.MaxSize), i, err); err != nil {
			t.Fatal(err)
		}
		if err := filled(before, before.Size(), 1); err != nil {
			t.Fatalf("Resize(%v, %d) = %v wrote over another block: %v", b, size, n, err)
		}
		b = n
		s.accounts(t, a, "after Resize", before, b)
	}
	fill(b, b.Size(), 9)
	for _, bad := range []struct {
		block blockalloc.Block
		size  uintptr
	}{{blockalloc.Block{}, s.size}, {b, 0}, {b, top}, {b, ^uintptr(0)}} {
		if n, err := r.Resize(bad.block, bad.size); !errors.Is(err, blockalloc.ErrBadLayout) || n != bad.block {
			t.Errorf("Resize(%v, %d) = %v, %v; want the block and ErrBadLayout", bad.block, bad.size, n, err)
		}
	}
	if err := filled(b, b.Size(), 9); err != nil {
		t.Error(err)
	}
	s.accounts(t, a, "after a refused Resize", before, b)
	gone := b
	free(t, a, b)
	for _, size := range []uintptr{gone.Size(), gone.Size() / 2, gone.Size() + 1} {
		if n, err := r.Resize(gone, max(1, size)); !notLive(err) && !errors.Is(err, blockalloc.ErrWouldMove) || n != gone {
			t.Errorf("Resize(%v, %d), which is not live = %v, %v; want it refused", gone, size, n, err)
		}
	}
	s.accounts(t, a, "after a Resize of what is not live", before)
	if err := filled(before, before.Size(), 1); err != nil {
		t.Error(err)
	}
	free(t, a, before)
}

// resized checks what Resize has made of b, which was filled with seed.
func (s suite) resized(a blockalloc.Allocator, b, n blockalloc.Block, size uintptr, seed int, err error) error {
	if err != nil {
		if n != b || !errors.Is(err, blockalloc.ErrWouldMove) && !outOfRoom(err) {
			return fmt.Errorf("Resize(%v, %d) = %v with the error %w; want it to succeed, or the block with ErrWouldMove or ErrOutOfMemory", b, size, n, err)
		}
	} else {
		if n.Addr() != b.Addr() {
			return fmt.Errorf("Resize(%v, %d) = %v: the block has moved", b, size, n)
		}
		if err := mismatch(n, blockalloc.Layout{Size: size, Align: b.Align(), Zeroed: b.Layout().Zeroed}); err != nil {
			return fmt.Errorf("Resize(%v, %d): %w", b, size, err)
		}
		if n.Requested() != size {
			return fmt.Errorf("Resize(%v, %d) = %v, of a request for %d bytes", b, size, n, n.Requested())
		}
	}
	kept := b.Size()
	if err == nil {
		kept = min(kept, size)
	}
	if err := filled(n, kept, seed); err != nil {
		return fmt.Errorf("Resize(%v, %d) lost content: %w", b, size, err)
	}
	if s.Zeroed && n.Size() > b.Size() && slices.ContainsFunc(n.Bytes()[b.Size():], func(v byte) bool { return v != 0 }) {
		return fmt.Errorf("Resize(%v, %d) = %v: what was added is not zero", b, size, n)
	}
	if o, ok := blockalloc.OwnerOf(a); ok && !o.Owns(n) {
		return fmt.Errorf("after Resize(%v, %d), Owns(%v) = false", b, size, n)
	}
	return nil
}

// resize resizes a block in place, or leaves it as it was.
func (m *model) resize(r blockalloc.Resizer, b *modelBlock, size uintptr) error {
	failures, newest := m.failures(), b == m.live[len(m.live)-1]
	m.logf("Resize(%v, %d)", b, size)
	n, err := r.Resize(b.Block, size)
	if err != nil && m.failures() > failures && !errors.Is(err, ErrInjected) {
		return fmt.Errorf("Resize(%v, %d): %w: it does not wrap the error of the parent, which was made to fail", b.Block, size, err)
	}
	if err := m.resized(m.a, b.Block, n, size, b.number, err); err != nil {
		return err
	}
	if err != nil {
		m.logf("\trefused: %v", err)
		return m.intact(b)
	}
	asked := b.asked
	asked.Size = size
	if asked.Zeroed {
		if err := clearedFrom(n, b.Size()); err != nil {
			return fmt.Errorf("Resize(%v, %d): %w", b.Block, size, err)
		}
	}
	m.disordered = m.disordered || m.Arena && !newest
	at := slices.Index(m.live, b)
	m.remove(b)
	if err := m.add(&modelBlock{n, b.number, asked}); err != nil {
		return err
	}
	if !newest {
		last := m.live[len(m.live)-1]
		m.live = slices.Insert(m.live[:len(m.live)-1], at, last)
	}
	return nil
}
