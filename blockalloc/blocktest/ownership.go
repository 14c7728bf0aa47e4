package blocktest

import (
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
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
	for _, size := range []uintptr{s.size / 2, b.Size() - 1, b.Size() + 1, 2 * b.Size()} {
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
	if err != nil || back != b {
		t.Fatalf("FromRaw = %v, %v; want %v", back, err, b)
	}
	if err := filled(back, s.size, 5); err != nil {
		t.Error(err)
	}
	free(t, a, back)
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

// noCollector is locked by the test that has the garbage collector off, so that a
// concurrent one does not turn it on too early.
var noCollector sync.Mutex

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
	// A pointer past the end of an object may point to memory that the garbage
	// collector knows to be free. It ends the process when it finds one.
	noCollector.Lock()
	defer noCollector.Unlock()
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	runtime.GC() // waits for a collection under way
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
		if live[past.Addr()] == size {
			continue
		}
		if isOwner && o.Owns(past) {
			t.Errorf("Owns(%v) = true; it begins where %v ends", past, b)
		}
		refused(t, a, past)
	}
}
