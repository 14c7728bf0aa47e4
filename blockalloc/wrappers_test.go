package blockalloc_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
	"github.com/alloctrace/alloctrace/blockalloc/guard"
)

// shy is an allocator that is no Owner, whatever it is made of.
type shy struct{ blockalloc.Allocator }

// newRoot returns a new allocator with memory of its own, outside the Go heap where
// that can be had and the race detector need not see it.
func newRoot() blockalloc.Allocator {
	if hasSystem && !raceEnabled {
		return new(blockalloc.System)
	}
	return new(blockalloc.Heap)
}

// newHeap is for tests that misuse memory on purpose, to see the Heap's own error,
// which alloctest would report as a failure. It checks for leaks.
func newHeap(t testing.TB) *alloctrace.Proxy {
	return alloctest.New(t, alloctest.WithAllocator(new(blockalloc.Heap)))
}

// borrow returns a block that is nobody's until the test ends.
func borrow(t testing.TB, size, align uintptr) blockalloc.Block {
	t.Helper()
	mem := alloctest.New(t)
	b := mustAllocate(t, mem, size, align)
	t.Cleanup(func() { mustFree(t, mem, b) })
	return b
}

// never and reallocations are for failing.If.
func never(failing.Call) bool { return false }

func reallocations(c failing.Call) bool { return c.Op == failing.OpReallocate }

func frees(c failing.Call) bool { return c.Op == failing.OpFree }

// wide describes wrappers of allocators of any size that zero memory.
var wide = blocktest.Config{MaxSize: 16 << 20, Zeroed: true}

// conforms runs the suite over what wrap makes of a parent: a real one, and one of the
// suite's own.
func conforms(t *testing.T, name string, c blocktest.Config, wrap func(parent blockalloc.Allocator) blockalloc.Allocator) {
	t.Run(name, func(t *testing.T) {
		c.New = func(testing.TB) blockalloc.Allocator { return wrap(newRoot()) }
		c.NewOver = func(_ testing.TB, parent blockalloc.Allocator) (blockalloc.Allocator, error) {
			return wrap(parent), nil
		}
		blocktest.Run(t, c)
	})
}

// conformsApart runs it over allocators that also have memory of their own.
func conformsApart(t *testing.T, name string, c blocktest.Config, alloc func() blockalloc.Allocator) {
	t.Run(name, func(t *testing.T) {
		c.New = func(testing.TB) blockalloc.Allocator { return alloc() }
		blocktest.Run(t, c)
	})
}

func mustAllocate(t testing.TB, a blockalloc.Allocator, size, align uintptr) blockalloc.Block {
	t.Helper()
	b, err := a.Allocate(blockalloc.Layout{Size: size, Align: align})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustFree(t testing.TB, a blockalloc.Allocator, b blockalloc.Block) {
	t.Helper()
	if err := a.Free(b); err != nil {
		t.Error(err)
	}
}

// wantPanic checks that f panics with a text that contains want.
func wantPanic(t *testing.T, want string, f func()) {
	t.Helper()
	defer func() {
		t.Helper()
		if got := fmt.Sprint(recover()); !strings.Contains(got, want) {
			t.Errorf("panic %q, want one with %q", got, want)
		}
	}()
	f()
}

// wantNoAllocations checks that f does without the Go heap.
func wantNoAllocations(t *testing.T, f func()) {
	t.Helper()
	if raceEnabled {
		return // the race detector has allocations of its own
	}
	if n := testing.AllocsPerRun(100, f); n != 0 {
		t.Errorf("%v allocations on the Go heap, want none", n)
	}
}

// one is an allocator with one block, which it takes back without a word.
type one struct{ block blockalloc.Block }

func newOne(t testing.TB) *one {
	return &one{borrow(t, 4096, 4096)}
}

func (o *one) Allocate(blockalloc.Layout) (blockalloc.Block, error)           { return o.block, nil }
func (o *one) Reallocate(blockalloc.Block, uintptr) (blockalloc.Block, error) { return o.block, nil }
func (o *one) Free(blockalloc.Block) error                                    { return nil }
func (o *one) Owns(b blockalloc.Block) bool                                   { return b == o.block }

// refusal is an allocator that refuses everything, at no cost.
type refusal struct{}

func (refusal) Allocate(blockalloc.Layout) (blockalloc.Block, error) {
	return blockalloc.Block{}, blockalloc.ErrOutOfMemory
}

func (refusal) Reallocate(b blockalloc.Block, _ uintptr) (blockalloc.Block, error) {
	return b, blockalloc.ErrNotOwned
}

func (refusal) Free(blockalloc.Block) error { return blockalloc.ErrNotOwned }
func (refusal) Owns(blockalloc.Block) bool  { return false }

// TestWrappersDoNotAllocate: what succeeds makes no garbage.
func TestWrappersDoNotAllocate(t *testing.T) {
	o := newOne(t)
	for name, a := range map[string]blockalloc.Allocator{
		"Fallback, first":  blockalloc.NewFallback(o, refusal{}),
		"Fallback, second": blockalloc.NewFallback(refusal{}, o),
		"Segregate, small": blockalloc.NewSegregate(o, refusal{}, 4096),
		"Segregate, large": blockalloc.NewSegregate(refusal{}, o, 8),
		"Limit":            blockalloc.NewLimit(o, 1<<20),
		"Locked":           blockalloc.NewLocked(o),
		"failing.After":    failing.After(o, 1<<40),
		"failing.Every":    failing.Every(o, 1<<40),
		"guard":            guard.New(o, guard.Options{Rate: -1}),
		"failing.If":       failing.If(o, never),
		"nested":           blockalloc.NewFallback(blockalloc.NewSegregate(blockalloc.NewFallback(o, refusal{}), refusal{}, 4096), refusal{}),
	} {
		t.Run(name, func(t *testing.T) {
			wantNoAllocations(t, func() {
				b, err := a.Allocate(blockalloc.Layout{Size: 4000, Align: 8})
				if err != nil {
					t.Fatal(err)
				}
				if b, err = a.Reallocate(b, 4096); err != nil {
					t.Fatal(err)
				}
				if !a.(blockalloc.Owner).Owns(b) {
					t.Fatal("Owns = false")
				}
				if err := a.Free(b); err != nil {
					t.Fatal(err)
				}
			})
		})
	}
}

// TestWrappersKeepErrors: an inner allocator's error comes back as it is, and so
// does the block.
func TestWrappersKeepErrors(t *testing.T) {
	want := errors.New("no luck today")
	for name, wrap := range map[string]func(blockalloc.Allocator) blockalloc.Allocator{
		"Segregate, small": func(a blockalloc.Allocator) blockalloc.Allocator {
			return blockalloc.NewSegregate(a, blockalloc.Null{}, 1<<20)
		},
		"Segregate, large": func(a blockalloc.Allocator) blockalloc.Allocator {
			return blockalloc.NewSegregate(blockalloc.Null{}, a, 8)
		},
		"Limit":         func(a blockalloc.Allocator) blockalloc.Allocator { return blockalloc.NewLimit(a, 1<<20) },
		"Locked":        func(a blockalloc.Allocator) blockalloc.Allocator { return blockalloc.NewLocked(a) },
		"failing.After": func(a blockalloc.Allocator) blockalloc.Allocator { return failing.After(a, 1<<40) },
		"guard":         func(a blockalloc.Allocator) blockalloc.Allocator { return guard.New(a, guard.Options{Rate: -1}) },
	} {
		inner := &moody{Allocator: alloctest.New(t)}
		a := wrap(inner)
		b := mustAllocate(t, a, 4096, 64)
		inner.err = want
		if n, err := a.Allocate(b.Layout()); err != want || !n.IsZero() {
			t.Errorf("%s: Allocate = %v, %v; want %v itself", name, n, err, want)
		}
		for _, size := range []uintptr{8192, 100, 0} {
			if n, err := a.Reallocate(b, size); err != want || n != b {
				t.Errorf("%s: Reallocate to %d = %v, %v; want the block and %v itself", name, size, n, err, want)
			}
		}
		if err := a.Free(b); err != want {
			t.Errorf("%s: Free: error %v, want %v itself", name, err, want)
		}
		inner.err = nil
		mustFree(t, a, b)
	}
}

// moody is an allocator that fails with err as long as there is one.
type moody struct {
	blockalloc.Allocator
	err error
}

func (m *moody) Unwrap() blockalloc.Allocator { return m.Allocator }

func (m *moody) Owns(b blockalloc.Block) bool {
	o, ok := blockalloc.OwnerOf(m.Allocator)
	return ok && o.Owns(b)
}

func (m *moody) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	if m.err != nil {
		return blockalloc.Block{}, m.err
	}
	return m.Allocator.Allocate(l)
}

func (m *moody) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	if m.err != nil {
		return b, m.err
	}
	return m.Allocator.Reallocate(b, size)
}

func (m *moody) Free(b blockalloc.Block) error {
	if m.err != nil {
		return m.err
	}
	return m.Allocator.Free(b)
}
