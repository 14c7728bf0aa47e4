package blockalloc_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
)

func TestSegregateConforms(t *testing.T) {
	t.Parallel()
	conforms(t, "AllSmall", wide, func(parent blockalloc.Allocator) blockalloc.Allocator {
		return blockalloc.NewSegregate(parent, blockalloc.Null{}, ^uintptr(0))
	})
	conforms(t, "AllLarge", wide, func(parent blockalloc.Allocator) blockalloc.Allocator {
		return blockalloc.NewSegregate(blockalloc.Null{}, parent, 0)
	})
	conformsApart(t, "HeapAndSystem", wide, func() blockalloc.Allocator {
		return blockalloc.NewSegregate(new(blockalloc.Heap), newRoot(), 4<<10)
	})
	conformsApart(t, "SystemAndHeap", wide, func() blockalloc.Allocator {
		return blockalloc.NewSegregate(newRoot(), new(blockalloc.Heap), 5000)
	})
	conformsApart(t, "LargeIsNoOwner", wide, func() blockalloc.Allocator {
		return blockalloc.NewSegregate(new(blockalloc.Heap), shy{newRoot()}, 4<<10)
	})
}

// TestSegregateRoutes: the size asked for decides where a block comes from; the size
// granted does not decide where it goes back to.
func TestSegregateRoutes(t *testing.T) {
	small, large := pages{newHeap(t)}, newHeap(t)
	s := blockalloc.NewSegregate(small, large, 1000)
	for _, c := range []struct {
		size  uintptr
		small bool
	}{{1, true}, {999, true}, {1000, true}, {1001, false}, {4096, false}} {
		b := mustAllocate(t, s, c.size, 8)
		if small.Owns(b) != c.small || large.Owns(b) == c.small || !s.Owns(b) {
			t.Errorf("a block of %d bytes: of small %t, want %t", c.size, small.Owns(b), c.small)
		}
		if c.small && b.Size() != 4096 {
			t.Fatalf("granted %d bytes, want a page", b.Size())
		}
		mustFree(t, s, b)
		if small.Owns(b) || large.Owns(b) {
			t.Errorf("a block of %d bytes is live after Free", c.size)
		}
		if err := s.Free(b); !errors.Is(err, blockalloc.ErrDoubleFree) {
			t.Errorf("second Free of %d bytes: error %v, want ErrDoubleFree", c.size, err)
		}
		for _, size := range []uintptr{0, 10, 5000} {
			if n, err := s.Reallocate(b, size); !errors.Is(err, blockalloc.ErrDoubleFree) || n != b {
				t.Errorf("Reallocate of a freed block to %d = %v, %v; want the block and ErrDoubleFree", size, n, err)
			}
		}
	}
	if err := s.Free(borrow(t, 8, 8)); !errors.Is(err, blockalloc.ErrNotOwned) {
		t.Errorf("Free of a foreign block: error %v, want ErrNotOwned", err)
	}
}

// pages grants whole pages of 4 KiB.
type pages struct{ *alloctrace.Proxy }

func (p pages) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	if l.Check() == nil {
		l.Size = (l.Size + 4095) &^ 4095
	}
	return p.Proxy.Allocate(l)
}

func (p pages) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	if size < 1<<30 {
		size = (size + 4095) &^ 4095
	}
	return p.Proxy.Reallocate(b, size)
}

// TestSegregateMoves: a reallocation across the threshold moves the block, either
// way, with its content.
func TestSegregateMoves(t *testing.T) {
	small, large := alloctest.New(t), alloctest.New(t)
	owners := map[bool]*alloctrace.Proxy{true: small, false: large}
	s := blockalloc.NewSegregate(small, large, 1000)
	b := mustAllocate(t, s, 700, 64)
	content := bytes.Repeat([]byte{7}, 500)
	copy(b.Bytes(), content)
	for _, size := range []uintptr{1001, 1000, 2000, 3000, 500, 600, 1 << 20, 1} {
		n, err := s.Reallocate(b, size)
		if err != nil || n.Size() != size || n.Align() != 64 {
			t.Fatalf("Reallocate to %d = %v, %v", size, n, err)
		}
		isSmall := size <= 1000
		if !owners[isSmall].Owns(n) || n.Addr() != b.Addr() && (small.Owns(b) || large.Owns(b)) {
			t.Errorf("after Reallocate from %d to %d the new block is of the wrong allocator, or the old one is live", b.Size(), size)
		}
		if keep := min(size, 500); !bytes.Equal(n.Bytes()[:keep], content[:keep]) {
			t.Errorf("Reallocate to %d lost content", size)
		}
		b = n
	}
	if n, err := s.Reallocate(b, 0); err != nil || !n.IsZero() || small.Owns(b) {
		t.Errorf("Reallocate to zero = %v, %v", n, err)
	}
}

// TestSegregateFailedMove: if the other allocator has no room, or the old block
// cannot be freed, nothing changes.
func TestSegregateFailedMove(t *testing.T) {
	small, large := blockalloc.NewLimit(alloctest.New(t), 1000), blockalloc.NewLimit(alloctest.New(t), 2000)
	s := blockalloc.NewSegregate(failing.If(small, frees), failing.If(large, frees), 1000)
	a, b := mustAllocate(t, s, 1000, 8), mustAllocate(t, s, 2000, 8)
	for _, c := range []struct {
		block blockalloc.Block
		size  uintptr
	}{{a, 1001}, {b, 1000}} {
		if n, err := s.Reallocate(c.block, c.size); !errors.Is(err, blockalloc.ErrLimit) || n != c.block || !s.Owns(n) {
			t.Errorf("Reallocate(%v, %d) = %v, %v; want the block and ErrLimit", c.block, c.size, n, err)
		}
	}
	large.SetMax(4000)
	s = blockalloc.NewSegregate(failing.If(small, frees), large, 1000)
	if n, err := s.Reallocate(a, 1001); !errors.Is(err, failing.ErrInjected) || n != a || !small.Owns(a) {
		t.Errorf("Reallocate of a block that cannot be freed = %v, %v; want the block and ErrInjected", n, err)
	}
	if small.Used() != 1000 || large.Used() != 2000 {
		t.Errorf("%d and %d bytes are live, want 1000 and 2000", small.Used(), large.Used())
	}
	mustFree(t, small, a)
	mustFree(t, large, b)
}

// TestSegregateLargeNoOwner: without knowing whether a block is live, a block that
// shrinks stays in the large allocator.
func TestSegregateLargeNoOwner(t *testing.T) {
	small, large := alloctest.New(t), alloctest.New(t)
	s := blockalloc.NewSegregate(small, shy{large}, 1000)
	b := mustAllocate(t, s, 2000, 8)
	n, err := s.Reallocate(b, 10)
	if err != nil || !large.Owns(n) {
		t.Errorf("Reallocate = %v, %v; want a block of large", n, err)
	}
	if _, ok := blockalloc.OwnerOf(s); ok || s.Owns(n) {
		t.Error("it owns blocks that it cannot know")
	}
	mustFree(t, s, n)
}

func TestSegregatePanics(t *testing.T) {
	var h blockalloc.Heap
	wantPanic(t, "small is a blockalloc_test.shy, which is no Owner", func() { blockalloc.NewSegregate(shy{&h}, &h, 8) })
}
