package blockalloc_test

import (
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
)

func TestLockedConforms(t *testing.T) {
	t.Parallel()
	conforms(t, "Root", wide, func(parent blockalloc.Allocator) blockalloc.Allocator {
		return blockalloc.NewLocked(parent)
	})
	conforms(t, "NoOwner", wide, func(parent blockalloc.Allocator) blockalloc.Allocator {
		return blockalloc.NewLocked(shy{parent})
	})
	conformsApart(t, "Careless", wide, func() blockalloc.Allocator { return blockalloc.NewLocked(new(careless)) })
}

// careless is for one goroutine at a time, which the race detector checks.
type careless struct {
	blockalloc.Heap
	calls int
}

func (c *careless) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	c.calls++
	return c.Heap.Allocate(l)
}

func (c *careless) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	c.calls++
	return c.Heap.Reallocate(b, size)
}

func (c *careless) Free(b blockalloc.Block) error {
	c.calls++
	return c.Heap.Free(b)
}

func (c *careless) Owns(b blockalloc.Block) bool {
	c.calls++
	return c.Heap.Owns(b)
}

// TestLockedExcludes: goroutines that use a Locked and a view of it at once enter
// the inner allocator one after the other.
func TestLockedExcludes(t *testing.T) {
	const workers, rounds = 8, 2000
	var c careless
	l := blockalloc.NewLocked(&c)
	view := l.Rewrap(func(a blockalloc.Allocator) blockalloc.Allocator { return a })
	var wg sync.WaitGroup
	for w := range workers {
		a := blockalloc.Allocator(l)
		if w%2 == 0 {
			a = view
		}
		wg.Go(func() {
			for range rounds {
				b := mustAllocate(t, a, 8, 8)
				b, err := a.Reallocate(b, 16)
				if err != nil || !a.(blockalloc.Owner).Owns(b) {
					t.Errorf("Reallocate = %v, %v", b, err)
				}
				mustFree(t, a, b)
			}
		})
	}
	wg.Wait()
	if want := workers * rounds * 4; c.calls != want {
		t.Errorf("the inner allocator counted %d calls of %d: some ran at the same time", c.calls, want)
	}
}

// TestLockedUnlocks: a panic inside does not leave the lock behind.
func TestLockedUnlocks(t *testing.T) {
	l := blockalloc.NewLocked(failing.If(alloctest.New(t), func(c failing.Call) bool {
		if c.Op == failing.OpAllocate && c.Layout.Size == 1 {
			panic("unlucky size")
		}
		return false
	}))
	wantPanic(t, "unlucky size", func() { _, _ = l.Allocate(blockalloc.BlockLayout(1)) })
	mustFree(t, l, mustAllocate(t, l, 2, 2))
}
