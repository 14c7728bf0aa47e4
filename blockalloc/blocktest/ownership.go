package blocktest

import (
	"errors"
	"slices"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// doubleFree frees a block three times with another one live. Neither the allocator's
// count nor its memory may change.
func (s suite) doubleFree(t *testing.T) {
	a := s.New(t)
	kept := allocate(t, a, blockalloc.BlockLayout(s.size))
	fill(kept, kept.Size(), 1)
	b := allocate(t, a, blockalloc.BlockLayout(s.size))
	free(t, a, b)
	for range 2 {
		refused(t, a, b)
		s.accounts(t, a, "after a double free", kept)
	}
	if s.MaxLive > 2 { // a place that was given back twice would be given out twice
		c := allocate(t, a, blockalloc.BlockLayout(s.size))
		d := allocate(t, a, blockalloc.BlockLayout(s.size))
		fill(c, c.Size(), 2)
		fill(d, d.Size(), 3)
		if err := filled(c, c.Size(), 2); err != nil {
			t.Errorf("after a double free, two blocks share memory: %v", err)
		}
		free(t, a, d)
		free(t, a, c)
	}
	if err := filled(kept, kept.Size(), 1); err != nil {
		t.Error(err)
	}
	free(t, a, kept)
	refused(t, a, kept)
	s.accounts(t, a, "after a double free")
}

func (s suite) foreignFree(t *testing.T) {
	a := s.New(t)
	var heap blockalloc.Heap
	refused(t, a, allocate(t, &heap, blockalloc.BlockLayout(s.size)))
	s.accounts(t, a, "after a foreign free")
	b := allocate(t, a, blockalloc.BlockLayout(s.size)) // now that it has memory of its own
	for _, size := range []uintptr{1, 64, 4 << 10, 64 << 10} {
		refused(t, a, allocate(t, &heap, blockalloc.BlockLayout(size)))
	}
	s.accounts(t, a, "after a foreign free", b)
	free(t, a, b)
}

func (s suite) wrongSizeFree(t *testing.T) {
	a := s.New(t)
	b := allocate(t, a, blockalloc.BlockLayout(s.size))
	for _, size := range []uintptr{b.Size() + 1, 2 * b.Size()} {
		wrong, err := blockalloc.FromRaw(b.Pointer(), layout(size, s.size))
		if err != nil {
			t.Fatal(err)
		}
		refused(t, a, wrong)
	}
	s.accounts(t, a, "after a free with a wrong size", b)
	free(t, a, b)
}

// interiorFree frees parts of a block that do not begin where it begins.
func (s suite) interiorFree(t *testing.T) {
	a := s.New(t)
	b := allocate(t, a, blockalloc.BlockLayout(s.size))
	fill(b, b.Size(), 1)
	for _, offset := range []uintptr{1, 8, s.size / 2, s.size - 1} {
		if offset >= s.size {
			continue
		}
		for _, size := range []uintptr{1, s.size - offset, b.Size()} {
			part, err := at(b, offset, size)
			if err != nil {
				t.Fatal(err)
			}
			refused(t, a, part)
			if o, ok := blockalloc.OwnerOf(a); ok && o.Owns(part) {
				t.Errorf("Owns(%v) = true; it lies inside %v", part, b)
			}
		}
	}
	if err := filled(b, b.Size(), 1); err != nil {
		t.Error(err)
	}
	s.accounts(t, a, "after a free of a part", b)
	free(t, a, b)
}

func (s suite) raw(t *testing.T) {
	a := s.New(t)
	b := allocate(t, a, blockalloc.BlockLayout(s.size))
	fill(b, s.size, 5)
	given := b
	p, l := given.IntoRaw()
	if !given.IsZero() {
		t.Errorf("after IntoRaw the block is %v, want the empty one", given)
	}
	free(t, a, given) // gives nothing back: the memory was given away
	back, err := blockalloc.FromRaw(p, l)
	if err != nil || back.Pointer() != b.Pointer() || back.Layout() != l || l.Size != s.size {
		t.Fatalf("FromRaw(%#x, %v) = %v, %v; want %d bytes of %v", uintptr(p), l, back, err, s.size, b)
	}
	if err := filled(back, s.size, 5); err != nil {
		t.Error(err)
	}
	freeRaw(t, a, back, b)
}

// freeRaw frees raw, which FromRaw made of the pointer to whole. A wrapper of what is no Finder may say that it does not know
// what was granted; then it frees whole.
func freeRaw(t testing.TB, a blockalloc.Allocator, raw, whole blockalloc.Block) {
	t.Helper()
	err := a.Free(raw)
	if _, isFinder := blockalloc.FinderOf(a); !isFinder && errors.Is(err, errors.ErrUnsupported) && errors.Is(err, blockalloc.ErrNotOwned) {
		n, refused := a.Reallocate(raw, raw.Size())
		if n != raw || !errors.Is(refused, errors.ErrUnsupported) || !errors.Is(refused, blockalloc.ErrNotOwned) {
			t.Errorf("Reallocate(%v, %d) = %v, %v; want the block and the error of Free: %v", raw, raw.Size(), n, refused, err)
		}
		err = a.Free(whole)
	}
	if err != nil {
		t.Errorf("Free(%v): %v", raw, err)
	}
}

// requestedSize frees and reallocates blocks that are made of a pointer and a size from what was asked for to what was
// granted.
func (s suite) requestedSize(t *testing.T) {
	a := s.New(t)
	o, isOwner := blockalloc.OwnerOf(a)
	made := func(size uintptr) (whole, raw blockalloc.Block) {
		whole = allocate(t, a, layout(s.size-1, 1))
		if whole.Requested() != s.size-1 {
			t.Errorf("%v is of a request for %d bytes, want %d", whole, whole.Requested(), s.size-1)
		}
		fill(whole, s.size-1, 7)
		raw, err := blockalloc.FromRaw(whole.Pointer(), layout(min(size, whole.Size()), 1))
		if err != nil {
			t.Fatal(err)
		}
		if isOwner && !o.Owns(raw) {
			t.Errorf("Owns(%v) = false; it is %v", raw, whole)
		}
		return whole, raw
	}
	for _, size := range []uintptr{s.size - 1, s.size, ^uintptr(0)} {
		whole, raw := made(size)
		freeRaw(t, a, raw, whole)
		if isOwner && (o.Owns(raw) || o.Owns(whole)) {
			t.Errorf("%v was freed, and is owned", raw)
		}
		whole, raw = made(size)
		n, err := a.Reallocate(raw, s.size/2)
		if _, isFinder := blockalloc.FinderOf(a); !isFinder && errors.Is(err, errors.ErrUnsupported) {
			n, err = a.Reallocate(whole, s.size/2)
		}
		if err != nil {
			t.Fatal(err)
		}
		if err := filled(n, s.size/2, 7); err != nil || n.Requested() != s.size/2 {
			t.Errorf("after Reallocate(%v, %d): %v of a request for %d bytes: %v", raw, s.size/2, n, n.Requested(), err)
		}
		free(t, a, n)
	}
	s.accounts(t, a, "after frees with the size that was asked for")
}

func (s suite) owns(t *testing.T) {
	a := s.New(t)
	o, ok := blockalloc.OwnerOf(a)
	if !ok {
		t.Logf("%T is no Owner", a)
		return
	}
	b := allocate(t, a, blockalloc.BlockLayout(s.size))
	if !o.Owns(b) {
		t.Errorf("Owns(%v) = false for a live block", b)
	}
	var heap blockalloc.Heap
	if foreign := allocate(t, &heap, blockalloc.BlockLayout(s.size)); o.Owns(foreign) {
		t.Errorf("Owns(%v) = true for a foreign block", foreign)
	}
	free(t, a, b)
	if o.Owns(b) || o.Owns(blockalloc.Block{}) {
		t.Error("Owns is true of a freed or an empty block")
	}
}

// pastTheEnd frees blocks that begin where live ones end, the last of them at the end
// of the allocator's memory.
func (s suite) pastTheEnd(t *testing.T) {
	a := s.New(t)
	var blocks []blockalloc.Block
	if s.Bounded {
		blocks = s.fillUp(t, a)
	} else {
		for range min(4, s.MaxLive) {
			blocks = append(blocks, allocate(t, a, blockalloc.BlockLayout(s.size)))
		}
	}
	live := make(map[uintptr]uintptr)
	for _, b := range blocks {
		live[b.Addr()] = b.Size()
	}
	defer withoutCollector()()
	for _, b := range blocks {
		s.checkPastTheEnd(t, a, b, live)
	}
	s.accounts(t, a, "after frees past the end", blocks...)
	for _, b := range slices.Backward(blocks) {
		free(t, a, b)
	}
}

func (s suite) checkPastTheEnd(t *testing.T, a blockalloc.Allocator, b blockalloc.Block, live map[uintptr]uintptr) {
	o, isOwner := blockalloc.OwnerOf(a)
	for _, size := range []uintptr{1, s.size, b.Size()} {
		past, err := at(b, b.Size(), size)
		if err != nil {
			t.Fatal(err)
		}
		if size <= live[past.Addr()] { // it is taken for one of a request for less
			continue
		}
		if isOwner && o.Owns(past) {
			t.Errorf("Owns(%v) = true; it begins where %v ends", past, b)
		}
		refused(t, a, past)
	}
}
