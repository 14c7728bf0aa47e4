package blockalloc_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// bumping is what Bump and Fixed have in common.
type bumping interface {
	blockalloc.Allocator
	blockalloc.Owner
	Mark() blockalloc.Mark
	Release(blockalloc.Mark) error
	Reset()
	Used() int64
	Size() int64
}

func newBump(t testing.TB, parent blockalloc.Allocator, size uintptr) *blockalloc.Bump {
	t.Helper()
	b, err := blockalloc.NewBump(parent, size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// bothBumping runs f on a Bump and on a Fixed of 4 KiB, aligned to 4 KiB.
func bothBumping(t *testing.T, f func(t carverTest, a bumping)) {
	t.Run("Bump", func(t *testing.T) {
		parent := newLender(t)
		b := newBump(t, parent, 4096)
		f(carverTest{t}, b)
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		parent.has(0)
	})
	t.Run("Fixed", func(t *testing.T) {
		f(carverTest{t}, newFixed(t, borrow(t, 4096, 4096).Bytes()))
	})
}

func TestBumpUsesTheLastByte(t *testing.T) {
	bothBumping(t, func(t carverTest, a bumping) {
		if a.Size() != 4096 || a.Used() != 0 {
			t.Fatalf("%d of %d bytes used at first, want 0 of 4096", a.Used(), a.Size())
		}
		whole := t.allocate(a, 4096, 4096)
		t.fill(whole, 1)
		t.filled(whole, 4096, 1)
		_, err := a.Allocate(blockalloc.Layout{Size: 1, Align: 1})
		t.fails(err, blockalloc.ErrOutOfMemory)
		t.free(a, whole)
		t.allocate(a, 4000, 1)
		_, err = a.Allocate(blockalloc.Layout{Size: 97, Align: 1})
		t.fails(err, blockalloc.ErrOutOfMemory)
		b := t.allocate(a, 96, 1)
		if a.Used() != 4096 {
			t.Errorf("%d bytes used, want 4096", a.Used())
		}
		b = t.reallocate(a, b, 90)
		b = t.reallocate(a, b, 96) // in place, to the last byte
		n, err := a.Reallocate(b, 97)
		if t.fails(err, blockalloc.ErrOutOfMemory); n != b || !a.Owns(b) {
			t.Errorf("failed Reallocate(%v) = %v", b, n)
		}
	})
}

func TestBumpPadding(t *testing.T) {
	bothBumping(t, func(t carverTest, a bumping) {
		first := t.allocate(a, 1, 1)
		b := t.allocate(a, 8, 1024)
		if a.Used() != 1032 {
			t.Errorf("%d bytes used, want 1032", a.Used())
		}
		t.free(a, b) // with its padding
		if a.Used() != 1 {
			t.Errorf("%d bytes used, want 1", a.Used())
		}
		t.reallocate(a, t.allocate(a, 8, 1024), 0)
		if a.Used() != 1 {
			t.Errorf("%d bytes used after Reallocate to 0, want 1", a.Used())
		}
		_, err := a.Allocate(blockalloc.Layout{Size: 1, Align: 1 << 40 >> (40 * (^uint(0)>>32&1 ^ 1))})
		if err != nil {
			t.fails(err, blockalloc.ErrOutOfMemory)
		}
		for align := uintptr(8192); blockalloc.BlockLayout(align).Check() == nil; align *= 2 {
			if b, err := a.Allocate(blockalloc.Layout{Size: 1, Align: align}); err != nil {
				t.fails(err, blockalloc.ErrOutOfMemory)
			} else if b.Addr()&(align-1) != 0 || a.Used() > 4096 {
				t.Fatalf("Allocate aligned to %d = %v, with %d bytes used", align, b, a.Used())
			} else {
				t.free(a, b)
			}
		}
		t.free(a, first)
	})
}

func TestBumpFreesInAnyOrder(t *testing.T) {
	bothBumping(t, func(t carverTest, a bumping) {
		var blocks [4]blockalloc.Block
		for i := range blocks {
			blocks[i] = t.allocate(a, 100, 4)
		}
		for _, step := range []struct {
			block int
			used  int64
		}{{1, 400}, {2, 400}, {3, 100}, {0, 0}} {
			t.free(a, blocks[step.block])
			t.refuses(a, blocks[step.block], blockalloc.ErrDoubleFree)
			if a.Used() != step.used {
				t.Errorf("%d bytes used when block %d is freed, want %d", a.Used(), step.block, step.used)
			}
		}
		if b := t.allocate(a, 100, 4); b != blocks[0] {
			t.Errorf("the first block is %v when all are freed, want %v", b, blocks[0])
		}
	})
}

func TestBumpReallocates(t *testing.T) {
	bothBumping(t, func(t carverTest, a bumping) {
		old := t.allocate(a, 1000, 8)
		newest := t.allocate(a, 1000, 8)
		t.fill(old, 1)
		t.fill(newest, 2)

		// The newest block shrinks and grows where it is, and gives back at once.
		for _, size := range []uintptr{10, 3096, 1000} {
			b := t.reallocate(a, newest, size)
			if b.Addr() != newest.Addr() || a.Used() != int64(1000+size) {
				t.Fatalf("Reallocate of the newest to %d bytes = %v, was at %#x; %d bytes used", size, b, newest.Addr(), a.Used())
			}
			t.filled(b, 10, 2)
			newest = b
		}
		t.fill(newest, 2)

		// An older one shrinks where it is, however full the memory is.
		filler := t.allocate(a, 2096, 1)
		t.fill(filler, 3)
		shrunk := t.reallocate(a, old, 500)
		if shrunk.Addr() != old.Addr() {
			t.Errorf("Reallocate of an older block to fewer bytes moved it")
		}
		t.refuses(a, old, blockalloc.ErrNotOwned) // its size was 1000
		t.filled(shrunk, 500, 1)
		t.filled(newest, 1000, 2)
		t.filled(filler, 2096, 3)

		// It cannot grow where it is, and there is no room to move.
		n, err := a.Reallocate(shrunk, 501)
		if t.fails(err, blockalloc.ErrOutOfMemory); n != shrunk || !a.Owns(shrunk) {
			t.Errorf("failed Reallocate(%v) = %v", shrunk, n)
		}
		t.filled(shrunk, 500, 1)

		// With room it moves; the old place is freed.
		t.free(a, filler)
		grown := t.reallocate(a, shrunk, 800)
		if grown.Addr() != newest.Addr()+1000 || a.Used() != 2800 {
			t.Errorf("Reallocate of an older block = %v with %d bytes used, want it behind %v", grown, a.Used(), newest)
		}
		t.filled(grown, 500, 1)
		t.filled(newest, 1000, 2)
		t.refuses(a, shrunk, blockalloc.ErrDoubleFree)
		t.free(a, newest, grown)
		if a.Used() != 0 {
			t.Errorf("%d bytes used when all is freed", a.Used())
		}

		_, err = a.Reallocate(blockalloc.Block{}, 8)
		t.fails(err, blockalloc.ErrBadLayout)
		b := t.allocate(a, 8, 8)
		_, err = a.Reallocate(b, ^uintptr(0))
		t.fails(err, blockalloc.ErrBadLayout)
	})
}

func TestBumpMarks(t *testing.T) {
	bothBumping(t, func(t carverTest, a bumping) {
		release := func(m blockalloc.Mark, used int64) {
			t.Helper()
			if err := a.Release(m); err != nil || a.Used() != used {
				t.Errorf("Release: %v, %d bytes used, want %d", err, a.Used(), used)
			}
		}
		bottom := a.Mark()
		first := t.allocate(a, 100, 1)
		m := a.Mark()
		for range 3 { // a mark stays good
			b := t.allocate(a, 8, 512)
			c := t.allocate(a, 8, 1)
			t.free(a, b)
			release(m, 100)
			t.refuses(a, b, blockalloc.ErrDoubleFree)
			t.refuses(a, c, blockalloc.ErrDoubleFree)
		}
		if !a.Owns(first) {
			t.Error("Release freed what is older than the mark")
		}

		// A block that grows in place after the mark stays; one that moves goes.
		first = t.reallocate(a, first, 300)
		t.allocate(a, 8, 1)
		release(m, 300)
		t.allocate(a, 8, 1)
		moved := t.reallocate(a, first, 400)
		release(m, 0)
		t.refuses(a, moved, blockalloc.ErrDoubleFree)

		// Above the top.
		t.fails(a.Release(m), blockalloc.ErrDoubleFree)
		// Of the same depth as before, but another block is beneath.
		t.allocate(a, 100, 1)
		t.allocate(a, 8, 1)
		t.fails(a.Release(m), blockalloc.ErrDoubleFree)
		if a.Used() != 108 {
			t.Errorf("a refused Release left %d bytes used, want 108", a.Used())
		}
		release(bottom, 0)
		release(bottom, 0)

		t.allocate(a, 8, 1)
		m = a.Mark()
		a.Reset()
		if a.Used() != 0 {
			t.Errorf("%d bytes used after Reset", a.Used())
		}
		t.fails(a.Release(m), blockalloc.ErrDoubleFree)
		release(bottom, 0)

		// Of another, or of none.
		other := newBump(t, alloctest.New(t), 64)
		t.fails(a.Release(other.Mark()), blockalloc.ErrNotOwned)
		t.fails(a.Release(blockalloc.Mark{}), blockalloc.ErrNotOwned)
		t.fails(other.Release(a.Mark()), blockalloc.ErrNotOwned)
	})
}

func TestBumpRefusesUnknown(t *testing.T) {
	bothBumping(t, func(t carverTest, a bumping) {
		b := t.allocate(a, 100, 1)
		c := t.allocate(a, 100, 1)
		t.refuses(a, t.part(b, 0, 99), blockalloc.ErrNotOwned) // of the wrong size
		t.refuses(a, t.part(b, 1, 99), blockalloc.ErrNotOwned) // inside a block
		t.refuses(a, t.part(c, 99, 1), blockalloc.ErrNotOwned) // inside the newest
		t.refuses(a, borrow(t, 100, 1), blockalloc.ErrNotOwned)
		nested := newBump(t, a, 64) // its blocks are in a's memory
		t.refuses(a, t.allocate(nested, 8, 1), blockalloc.ErrNotOwned)
		t.free(a, b)
		t.refuses(a, b, blockalloc.ErrDoubleFree)
		t.refuses(a, t.part(b, 50, 50), blockalloc.ErrDoubleFree)
		if err := nested.Close(); err != nil {
			t.Error(err)
		}
		t.free(a, blockalloc.Block{}, c)
		if a.Used() != 0 {
			t.Errorf("%d bytes used in the end", a.Used())
		}
	})
}

func TestBumpErrorsSayWhatToDo(t *testing.T) {
	bothBumping(t, func(t carverTest, a bumping) {
		_, err := a.Allocate(blockalloc.Layout{Size: 5000, Align: 8})
		name := strings.TrimPrefix(t.Name(), "TestBumpErrorsSayWhatToDo/")
		want := "blockalloc: " + name + ".Allocate(5000 B aligned to 8): out of memory: 0 of 4096 bytes are used: free the newest blocks or make it larger"
		if err == nil || err.Error() != want {
			t.Errorf("error %q, want %q", err, want)
		}
	})
}

func TestBumpAllocatesNothingOnTheGoHeap(t *testing.T) {
	bothBumping(t, func(t carverTest, a bumping) {
		t.noGoAllocations(func() {
			m := a.Mark()
			b, _ := a.Allocate(blockalloc.Layout{Size: 100, Align: 64})
			c, _ := a.Allocate(blockalloc.Layout{Size: 100, Align: 64})
			b, _ = a.Reallocate(b, 200)
			if !a.Owns(b) || a.Free(c) != nil || a.Free(b) != nil || a.Release(m) != nil {
				panic("refused")
			}
			a.Reset()
		})
	})
}

func TestBumpClose(t *testing.T) {
	at, parent := carverTest{t}, newLender(t)
	b := newBump(t, parent, 4096)
	if b.Parent() != blockalloc.Allocator(parent) {
		t.Errorf("Parent() = %v", b.Parent())
	}
	x := at.allocate(b, 8, 8)
	m := b.Mark()

	parent.keeping = errors.New("not now")
	if err := b.Close(); err != parent.keeping {
		t.Errorf("Close: error %v, want the parent's", err)
	}
	if !b.Owns(x) || b.Used() != 8 {
		t.Error("a failed Close has ended the blocks")
	}
	parent.keeping = nil
	at.allocate(b, 8, 8)
	for range 2 {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		parent.has(0)
	}

	at.refuses(b, x, blockalloc.ErrNotOwned)
	at.refuses(b, x, blockalloc.ErrClosed)
	at.fails(b.Release(m), blockalloc.ErrClosed)
	at.fails(b.Release(b.Mark()), blockalloc.ErrClosed)
	_, err := b.Allocate(blockalloc.BlockLayout(8))
	at.fails(err, blockalloc.ErrClosed)
	_, err = b.Allocate(blockalloc.Layout{Size: 8, Align: 3})
	at.fails(err, blockalloc.ErrBadLayout)
	if empty, err := b.Allocate(blockalloc.Layout{Size: 0, Align: 8}); err != nil || !empty.IsZero() {
		t.Errorf("Allocate of size 0 = %v, %v", empty, err)
	}
	at.free(b, blockalloc.Block{})
	b.Reset()
	if b.Used() != 0 || b.Size() != 0 {
		t.Errorf("%d of %d bytes used after Close", b.Used(), b.Size())
	}
}

func TestNewBumpRefuses(t *testing.T) {
	at, parent := carverTest{t}, newLender(t)
	parent.refusal = errors.New("not today")
	for _, try := range []struct {
		size uintptr
		want string
	}{
		{0, "blockalloc: NewBump of size 0: bad layout: ask for 1 byte or more"},
		{64, "not today"},
	} {
		b, err := blockalloc.NewBump(parent, try.size)
		if b != nil || err == nil || err.Error() != try.want {
			t.Errorf("NewBump(parent, %d) = %v, %v; want %q", try.size, b, err, try.want)
		}
	}
	_, err := blockalloc.NewBump(alloctest.New(t), ^uintptr(0))
	at.fails(err, blockalloc.ErrBadLayout)
	_, err = blockalloc.NewBump(blockalloc.Null{}, 1)
	at.fails(err, blockalloc.ErrOutOfMemory)
}

// TestBumpOfAGenerousParent: what the parent grants can all be used.
func TestBumpOfAGenerousParent(t *testing.T) {
	at, parent := carverTest{t}, newLender(t)
	parent.extra = 100
	for _, size := range []uintptr{1, 2, 3, 1000, 1 << 20} {
		b := newBump(t, parent, size)
		if b.Size() != int64(size+100) {
			t.Errorf("Size() = %d, want %d", b.Size(), size+100)
		}
		at.fill(at.allocate(b, size+100, 1), 1)
		if err := b.Close(); err != nil {
			t.Error(err)
		}
		parent.has(0)
	}
}
