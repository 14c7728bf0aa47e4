package blockalloc_test

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
)

// TestLimitCanNeverFit: the error of a request above the bound says so, and by how much
// to raise the bound. It does not say to free blocks, and the request does not wait.
func TestLimitCanNeverFit(t *testing.T) {
	l := blockalloc.NewLimit(new(blockalloc.Heap), 100)
	b := mustAllocate(t, l, 60, 4)
	generous := blockalloc.NewLimit(&generous{new(blockalloc.Heap), 20}, 100)
	closed := blockalloc.NewLimit(new(blockalloc.Heap), -1)
	noOwner := blockalloc.NewLimit(shy{new(blockalloc.Heap)}, 100)
	c := mustAllocate(t, noOwner, 60, 4)
	allocate := func(a blockalloc.Allocator, size uintptr) error {
		_, err := a.Allocate(ofSize(size))
		return err
	}
	wait := func(a blockalloc.Allocator, size uintptr) error {
		_, err := blockalloc.AllocateContext(context.Background(), a, ofSize(size)) // for ever, if it waits
		return err
	}
	reallocate := func(a blockalloc.Allocator, b blockalloc.Block, size uintptr) error {
		n, err := a.Reallocate(b, size)
		if n != b {
			t.Errorf("Reallocate returns %v", n)
		}
		return err
	}
	const free, never = ": free blocks or raise it by SetMax", " B with SetMax, or ask for less"
	for want, err := range map[string]error{
		"Limit.Allocate(41 B aligned to 1): out of memory: limit reached: 41 B requested, 60 B used, limit 100 B" + free:                                              allocate(l, 41),
		"Limit.Allocate(100 B aligned to 1): out of memory: limit reached: 100 B requested, 60 B used, limit 100 B" + free:                                            allocate(l, 100),
		"101 B requested, 60 B used, limit 100 B: that can never fit: raise the limit by 1" + never:                                                                   allocate(l, 101),
		"150 B requested, 60 B used, limit 100 B: that can never fit: raise the limit by 50" + never:                                                                  wait(l, 150),
		"152 B requested, 60 B used, limit 100 B: that can never fit: raise the limit by 52" + never:                                                                  wait(alloctrace.Wrap(l), 152),
		"1 B requested, 0 B used, limit 0 B: that can never fit: raise the limit by 1" + never:                                                                        allocate(closed, 1),
		"2 B requested, 0 B used, limit 0 B: that can never fit: raise the limit by 2" + never:                                                                        wait(closed, 2),
		"81 B requested and 101 B granted, 0 B used, limit 100 B: that can never fit: raise the limit by 1" + never:                                                   allocate(generous, 81),
		"82 B requested and 102 B granted, 0 B used, limit 100 B: that can never fit: raise the limit by 2" + never:                                                   wait(generous, 82),
		", 70): out of memory: limit reached: 70 B requested beside the 60 B of the block, 60 B used, limit 100 B: that can never fit: raise the limit by 30" + never: reallocate(l, b, 70),
		", 71): out of memory: limit reached: 71 B requested beside the 60 B of the block, 60 B used, limit 100 B: that can never fit: raise the limit by 31" + never: reallocate(noOwner, c, 71),
		", 50): out of memory: limit reached: 50 B requested beside the 60 B of the block, 60 B used, limit 100 B: that can never fit: raise the limit by 10" + never: reallocate(noOwner, c, 50),
	} {
		if !errors.Is(err, blockalloc.ErrLimit) || !errors.Is(err, blockalloc.ErrOutOfMemory) || !strings.HasSuffix(err.Error(), want) {
			t.Errorf("error %v\nwant one that ends with %s", err, want)
		}
	}
	l.SetMax(130) // as it says
	n, err := l.Reallocate(b, 70)
	if err != nil {
		t.Fatal(err)
	}
	mustFree(t, l, n)
	mustFree(t, noOwner, c)
	if l.Used() != 0 || noOwner.Used() != 0 || generous.Used() != 0 {
		t.Errorf("%d, %d and %d bytes are used", l.Used(), noOwner.Used(), generous.Used())
	}
}

// TestLimitBelow: whatever is above a Limit, its error wraps ErrLimit and
// ErrOutOfMemory, and includes the Limit's text.
func TestLimitBelow(t *testing.T) {
	must := func(a blockalloc.Allocator, err error) blockalloc.Allocator {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for name, over := range map[string]func(l blockalloc.Allocator) blockalloc.Allocator{
		"Slab":             func(l blockalloc.Allocator) blockalloc.Allocator { return must(blockalloc.NewSlab(l, 64<<10)) },
		"Slab of its size": func(l blockalloc.Allocator) blockalloc.Allocator { return must(blockalloc.NewSlab(l, 4<<10)) },
		"FreeList": func(l blockalloc.Allocator) blockalloc.Allocator {
			return must(blockalloc.NewFreeList(l, blockalloc.BlockLayout(4<<10), 0))
		},
		"Fallback, first":  func(l blockalloc.Allocator) blockalloc.Allocator { return blockalloc.NewFallback(l, blockalloc.Null{}) },
		"Fallback, second": func(l blockalloc.Allocator) blockalloc.Allocator { return blockalloc.NewFallback(blockalloc.Null{}, l) },
		"Segregate, small": func(l blockalloc.Allocator) blockalloc.Allocator {
			return blockalloc.NewSegregate(l, blockalloc.Null{}, 1<<20)
		},
		"Segregate, large": func(l blockalloc.Allocator) blockalloc.Allocator {
			return blockalloc.NewSegregate(blockalloc.Null{}, l, 16)
		},
		"Locked":  func(l blockalloc.Allocator) blockalloc.Allocator { return blockalloc.NewLocked(l) },
		"Failing": func(l blockalloc.Allocator) blockalloc.Allocator { return failing.If(l, never) },
		"debug.Allocator": func(l blockalloc.Allocator) blockalloc.Allocator {
			return debug.New(l, debug.Options{})
		},
		"Limit":    func(l blockalloc.Allocator) blockalloc.Allocator { return blockalloc.NewLimit(l, 1<<30) },
		"Proxy":    func(l blockalloc.Allocator) blockalloc.Allocator { return alloctrace.Wrap(l) },
		"no Owner": func(l blockalloc.Allocator) blockalloc.Allocator { return blockalloc.NewLimit(shy{l}, 1<<30) },
		"several": func(l blockalloc.Allocator) blockalloc.Allocator {
			slab := must(blockalloc.NewSlab(alloctrace.Wrap(blockalloc.NewLocked(l)), 4<<10))
			return blockalloc.NewFallback(debug.New(slab, debug.Options{}), blockalloc.Null{})
		},
	} {
		l := blockalloc.NewLimit(new(blockalloc.Heap), 20<<10)
		a := over(l)
		check := func(op string, err error) {
			t.Helper()
			if !errors.Is(err, blockalloc.ErrLimit) || !errors.Is(err, blockalloc.ErrOutOfMemory) || !strings.Contains(err.Error(), "B used, limit 20480 B") {
				t.Errorf("%s: %s: error %v, want the Limit's", name, op, err)
			}
		}
		var held []blockalloc.Block
		for len(held) < 100 {
			b, err := a.Allocate(blockalloc.Layout{Size: 4 << 10, Align: 8})
			if err != nil {
				check("Allocate", err)
				break
			}
			held = append(held, b)
		}
		if len(held) > 0 && name != "FreeList" {
			n, err := a.Reallocate(held[0], 18<<10)
			check("Reallocate", err)
			if n != held[0] {
				t.Errorf("%s: Reallocate returns %v", name, n)
			}
		}
		for _, b := range held {
			mustFree(t, a, b)
		}
		if name != "FreeList" {
			_, err := a.Allocate(blockalloc.Layout{Size: 64 << 10, Align: 8}) // can never fit
			check("Allocate of too much", err)
		}
		_, err := blockalloc.NewBump(a, 64<<10)
		if name != "FreeList" {
			check("NewBump", err)
		}
	}
}
