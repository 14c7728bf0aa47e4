package blockalloc_test

import (
	"bytes"
	"errors"
	"fmt"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
)

func TestFallbackConforms(t *testing.T) {
	t.Parallel()
	conforms(t, "FirstServes", wide, func(parent blockalloc.Allocator) blockalloc.Allocator {
		return blockalloc.NewFallback(parent, blockalloc.Null{})
	})
	conforms(t, "SecondServes", wide, func(parent blockalloc.Allocator) blockalloc.Allocator {
		return blockalloc.NewFallback(blockalloc.Null{}, parent)
	})
	conformsApart(t, "FirstCarves", blocktest.Config{MaxSize: wide.MaxSize}, func() blockalloc.Allocator {
		list, err := blockalloc.NewFreeList(new(blockalloc.Heap), blockalloc.BlockLayout(4<<10), 64)
		if err != nil {
			t.Fatal(err)
		}
		return blockalloc.NewFallback(blockalloc.NewLocked(list), newRoot())
	})
	conformsApart(t, "BothServe", wide, func() blockalloc.Allocator {
		return blockalloc.NewFallback(failing.Every(new(blockalloc.Heap), 3), newRoot())
	})
	conformsApart(t, "SecondIsNoOwner", wide, func() blockalloc.Allocator {
		return blockalloc.NewFallback(failing.Every(new(blockalloc.Heap), 2), shy{new(blockalloc.Heap)})
	})
}

// TestFallbackErrors: if both fail, the error wraps both, on one line. A bad layout is
// returned once, and the second is not asked.
func TestFallbackErrors(t *testing.T) {
	second := failing.If(blockalloc.NewLimit(alloctest.New(t), 100), never)
	f := blockalloc.NewFallback(failing.After(blockalloc.Null{}, 0), second)
	_, err := f.Allocate(blockalloc.BlockLayout(4096))
	if !errors.Is(err, failing.ErrInjected) || !errors.Is(err, blockalloc.ErrLimit) {
		t.Errorf("error %v, want ErrInjected and ErrLimit", err)
	}
	_, firstErr := failing.After(blockalloc.Null{}, 0).Allocate(blockalloc.BlockLayout(4096))
	_, secondErr := second.Allocate(blockalloc.BlockLayout(4096))
	if want := fmt.Sprintf("%v; then %v", firstErr, secondErr); err.Error() != want {
		t.Errorf("error %q\nwant  %q", err, want)
	}
	asked := second.Calls()
	if _, err := f.Allocate(blockalloc.BlockLayout(999)); !errors.Is(err, blockalloc.ErrBadLayout) || errors.Is(err, blockalloc.ErrLimit) {
		t.Errorf("bad layout: error %v, want ErrBadLayout alone", err)
	}
	b := mustAllocate(t, f, 64, 64)
	if n, err := f.Reallocate(b, ^uintptr(0)); !errors.Is(err, blockalloc.ErrBadLayout) || n != b {
		t.Errorf("Reallocate to a bad layout = %v, %v; want the block and ErrBadLayout", n, err)
	}
	if n, err := f.Reallocate(b, 200); !errors.Is(err, failing.ErrInjected) || !errors.Is(err, blockalloc.ErrLimit) || n != b {
		t.Errorf("Reallocate = %v, %v; want the block, ErrInjected and ErrLimit", n, err)
	}
	if got := second.Calls() - asked; got != 2 {
		t.Errorf("the second was asked %d times, want 2: to allocate and to reallocate", got)
	}
	mustFree(t, f, b)
}

// badLayouts refuses all layouts, though they are good ones.
type badLayouts struct{ blockalloc.Null }

func (badLayouts) Allocate(blockalloc.Layout) (blockalloc.Block, error) {
	return blockalloc.Block{}, blockalloc.ErrBadLayout
}

func TestFallbackBadLayoutIsTheCallers(t *testing.T) {
	f := blockalloc.NewFallback(badLayouts{}, alloctest.New(t))
	if b, err := f.Allocate(blockalloc.BlockLayout(8)); err != blockalloc.ErrBadLayout {
		t.Errorf("Allocate = %v, %v; want ErrBadLayout itself", b, err)
	}
}

// TestFallbackMigrates: a reallocation that the block's allocator cannot serve moves
// the block to the other, whichever it is, with its content, and frees the old one.
func TestFallbackMigrates(t *testing.T) {
	for _, size := range []uintptr{300, 101, 50, 8192} {
		heaps := [2]*alloctrace.Proxy{alloctest.New(t), alloctest.New(t)}
		stuck := [2]*failing.Allocator{failing.If(heaps[0], reallocations), failing.If(heaps[1], reallocations)}
		allocations := failing.If(stuck[0], func(c failing.Call) bool {
			return c.Op == failing.OpAllocate && c.Layout.Size == 100
		})
		for from, f := range []*blockalloc.Fallback{
			blockalloc.NewFallback(stuck[0], stuck[1]),
			blockalloc.NewFallback(allocations, stuck[1]),
		} {
			b := mustAllocate(t, f, 100, 64)
			if !heaps[from].Owns(b) {
				t.Fatalf("the block is not of allocator %d", from)
			}
			content := bytes.Repeat([]byte{7}, 100)
			copy(b.Bytes(), content)
			n, err := f.Reallocate(b, size)
			if err != nil || n.Size() != size || n.Align() != 64 {
				t.Fatalf("Reallocate from allocator %d to %d bytes = %v, %v", from, size, n, err)
			}
			if !heaps[1-from].Owns(n) || heaps[from].Owns(b) || f.Owns(b) || !f.Owns(n) {
				t.Errorf("from allocator %d: the block did not move to the other one", from)
			}
			if keep := min(size, 100); !bytes.Equal(n.Bytes()[:keep], content[:keep]) {
				t.Errorf("from allocator %d to %d bytes: content lost", from, size)
			}
			mustFree(t, f, n)
			if heaps[0].Owns(n) || heaps[1].Owns(n) {
				t.Error("Free left the block live")
			}
		}
	}
}

// TestFallbackUndoesMigration: if the old block cannot be freed, it stays, and the
// new one does not.
func TestFallbackUndoesMigration(t *testing.T) {
	heap := alloctest.New(t)
	other := blockalloc.NewLimit(alloctest.New(t), 1<<20)
	stuck := failing.If(heap, func(c failing.Call) bool { return c.Op != failing.OpAllocate })
	f := blockalloc.NewFallback(stuck, other)
	b := mustAllocate(t, f, 100, 8)
	b.Bytes()[99] = 9
	n, err := f.Reallocate(b, 200)
	if !errors.Is(err, failing.ErrInjected) || n != b || !heap.Owns(b) || b.Bytes()[99] != 9 {
		t.Errorf("Reallocate = %v, %v; want the block as it was and ErrInjected", n, err)
	}
	if used := other.Used(); used != 0 {
		t.Errorf("%d bytes are left behind in the other allocator", used)
	}
	if n, err := f.Reallocate(b, 0); err != nil || !n.IsZero() { // injection leaves size zero alone
		t.Errorf("Reallocate to zero = %v, %v", n, err)
	}

	inFirst := mustAllocate(t, f, 100, 8)
	var left blockalloc.Block
	f2 := blockalloc.NewFallback(stuck, failing.If(other, func(c failing.Call) bool {
		left = c.Block
		return frees(c)
	}))
	if _, err := f2.Reallocate(inFirst, 200); !errors.Is(err, failing.ErrInjected) || other.Used() != 200 || !heap.Owns(inFirst) {
		t.Errorf("with nothing that can be freed: error %v, %d bytes in the other", err, other.Used())
	}
	mustFree(t, other, left)
	mustFree(t, heap, inFirst)
}

// TestFallbackRefusesUnknown: a block that neither owns is an error: a double free if
// one of the two knows that.
func TestFallbackRefusesUnknown(t *testing.T) {
	first, second := newHeap(t), newHeap(t)
	foreign := borrow(t, 64, 64)
	for name, f := range map[string]*blockalloc.Fallback{
		"of two Owners": blockalloc.NewFallback(first, second),
		"of one Owner":  blockalloc.NewFallback(first, shy{second}),
	} {
		refused := func(what string, b blockalloc.Block, want error) {
			t.Helper()
			is := func(err error) bool { // the one, and not the other
				return errors.Is(err, want) && errors.Is(err, blockalloc.ErrDoubleFree) != errors.Is(err, blockalloc.ErrNotOwned)
			}
			if err := f.Free(b); !is(err) {
				t.Errorf("Fallback %s: Free of %s: error %v, want %v", name, what, err, want)
			}
			for _, size := range []uintptr{0, 8, 64, 1000} {
				if n, err := f.Reallocate(b, size); !is(err) || n != b {
					t.Errorf("Fallback %s: Reallocate of %s to %d = %v, %v; want the block and %v", name, what, size, n, err, want)
				}
			}
			if f.Owns(b) {
				t.Errorf("Fallback %s owns %s", name, what)
			}
		}
		refused("a foreign block", foreign, blockalloc.ErrNotOwned)
		for from, heap := range []*alloctrace.Proxy{first, second} {
			b := mustAllocate(t, heap, 64, 64)
			wrong, err := blockalloc.FromRaw(b.Pointer(), blockalloc.Layout{Size: 32, Align: 32})
			if err != nil {
				t.Fatal(err)
			}
			refused("a part of a block", wrong, blockalloc.ErrNotOwned)
			mustFree(t, f, b)
			if heap.Owns(b) {
				t.Errorf("Fallback %s: Free left the block in allocator %d", name, from)
			}
			refused("a freed block", b, blockalloc.ErrDoubleFree)
		}
		if err := f.Free(blockalloc.Block{}); err != nil {
			t.Errorf("Free of the empty block: %v", err)
		}
		if _, err := f.Reallocate(blockalloc.Block{}, 8); !errors.Is(err, blockalloc.ErrBadLayout) {
			t.Errorf("Reallocate of the empty block: error %v, want ErrBadLayout", err)
		}
	}
}

// TestFallbackCopiesNoFreedBlock: if the second allocator fails before it looks at the
// block, a freed block is not read.
func TestFallbackCopiesNoFreedBlock(t *testing.T) {
	second := &moody{Allocator: newRoot()}
	var first blockalloc.Heap
	fails := failing.After(&first, 0)
	f := blockalloc.NewFallback(fails, second)
	b := mustAllocate(t, f, 4096, 4096)
	mustFree(t, f, b)
	second.err = blockalloc.ErrLimit
	f = blockalloc.NewFallback(&first, second)
	if n, err := f.Reallocate(b, 8192); !errors.Is(err, blockalloc.ErrNotOwned) || n != b {
		t.Errorf("Reallocate of a freed block = %v, %v; want the block and ErrNotOwned", n, err)
	}
}

func TestFallbackPanics(t *testing.T) {
	var h blockalloc.Heap
	wantPanic(t, "first is a blockalloc_test.shy, which is no Owner", func() { blockalloc.NewFallback(shy{&h}, &h) })
	inner := blockalloc.NewFallback(&h, shy{&h})
	wantPanic(t, "first is a *blockalloc.Fallback, which is no Owner", func() { blockalloc.NewFallback(inner, &h) })
	blockalloc.NewFallback(blockalloc.NewFallback(&h, &h), shy{&h}) // does not
}
