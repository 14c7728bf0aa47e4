package alloctrace_test

import (
	"runtime"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
	"github.com/alloctrace/alloctrace/blockalloc/guard"
)

// newRoot returns a new allocator with memory of its own: a System, or a Heap where
// there is no System or where the race detector is to see the memory. There is no
// Debug, for the suite misuses memory on purpose.
func newRoot(t testing.TB) blockalloc.Allocator {
	var root blockalloc.Allocator = &blockalloc.System{}
	if raceEnabled || runtime.GOOS == "js" || runtime.GOOS == "wasip1" || runtime.GOOS == "plan9" {
		root = &blockalloc.Heap{}
	}
	return alloctest.New(t, alloctest.WithAllocator(root))
}

// compositions are allocators made of others. Each is held against the contract,
// bare and through a Proxy, over a root and over a parent of the suite's own.
var compositions = []struct {
	name   string
	config blocktest.Config
	alone  bool // root is where all memory comes from
	make   func(t testing.TB, root blockalloc.Allocator) blockalloc.Allocator
}{
	{"Fallback(Null, Root)", zeroed, true, func(_ testing.TB, root blockalloc.Allocator) blockalloc.Allocator {
		return blockalloc.NewFallback(blockalloc.Null{}, root)
	}},
	{"Fallback(failing.Every(Heap), Fallback(failing.Every(Heap), Root))", zeroed, false, func(_ testing.TB, root blockalloc.Allocator) blockalloc.Allocator {
		return blockalloc.NewFallback(
			failing.Every(&blockalloc.Heap{}, 2),
			blockalloc.NewFallback(failing.Every(&blockalloc.Heap{}, 3), root),
		)
	}},
	{"Fallback(Locked(FreeList(Pool)), Limit(Root))", anySize, false, func(t testing.TB, root blockalloc.Allocator) blockalloc.Allocator {
		return blockalloc.NewFallback(freeList(t, &blockalloc.Pool{}), blockalloc.NewLimit(root, 256<<20))
	}},
	{"Fallback(Locked(Bump(Root)), Pool)", anySize, false, func(t testing.TB, root blockalloc.Allocator) blockalloc.Allocator {
		bump, err := blockalloc.NewBump(root, 64<<10)
		if err != nil {
			t.Fatal(err)
		}
		return blockalloc.NewFallback(blockalloc.NewLocked(bump), &blockalloc.Pool{})
	}},
	{"Segregate(Limit(Pool), Root)", anySize, false, func(_ testing.TB, root blockalloc.Allocator) blockalloc.Allocator {
		return blockalloc.NewSegregate(blockalloc.NewLimit(&blockalloc.Pool{}, 256<<20), root, 8<<10)
	}},
	{"Segregate(Fallback(failing.Every(Locked(FreeList(Root))), Heap), Limit(Pool))", anySize, false, func(t testing.TB, root blockalloc.Allocator) blockalloc.Allocator {
		return blockalloc.NewSegregate(
			blockalloc.NewFallback(failing.Every(freeList(t, root), 2), &blockalloc.Heap{}),
			blockalloc.NewLimit(&blockalloc.Pool{}, 256<<20),
			page.Size,
		)
	}},
	{"Limit(Limit(Root))", zeroed, true, func(_ testing.TB, root blockalloc.Allocator) blockalloc.Allocator {
		return blockalloc.NewLimit(blockalloc.NewLimit(root, 256<<20), 64<<20)
	}},
	{"Limit(Fallback(Locked(FreeList(Root)), Pool))", bounded, false, func(t testing.TB, root blockalloc.Allocator) blockalloc.Allocator {
		return blockalloc.NewLimit(blockalloc.NewFallback(freeList(t, root), &blockalloc.Pool{}), 4<<20)
	}},
	{"Locked(Segregate(Fallback(FreeList(Root), Heap), Heap))", anySize, false, func(t testing.TB, root blockalloc.Allocator) blockalloc.Allocator {
		small, err := blockalloc.NewFreeList(root, blockalloc.Layout{Size: 256, Align: page.Align}, 0)
		if err != nil {
			t.Fatal(err)
		}
		return blockalloc.NewLocked(blockalloc.NewSegregate(blockalloc.NewFallback(small, &blockalloc.Heap{}), &blockalloc.Heap{}, 100))
	}},
	{"Slab(Limit(Root))", anySize, true, func(t testing.TB, root blockalloc.Allocator) blockalloc.Allocator {
		slab, err := blockalloc.NewSlab(blockalloc.NewLimit(root, 256<<20), 64<<10)
		if err != nil {
			t.Fatal(err)
		}
		return slab
	}},
	{"Limit(Locked(guard(Root)))", zeroed, false, func(t testing.TB, root blockalloc.Allocator) blockalloc.Allocator {
		silent := func(*debug.Report) {}
		return blockalloc.NewLimit(blockalloc.NewLocked(guard.New(root, guard.Options{Rate: 4 << 10, OnReport: silent})), 256<<20)
	}},
	{"failing.Every(Proxy(Limit(Proxy(Root))))", zeroed, true, func(_ testing.TB, root blockalloc.Allocator) blockalloc.Allocator {
		return failing.Every(alloctrace.Wrap(blockalloc.NewLimit(alloctrace.Wrap(root), 256<<20)), 1<<40)
	}},
}

var (
	anySize = blocktest.Config{MaxSize: 16 << 20}
	zeroed  = blocktest.Config{MaxSize: 16 << 20, Zeroed: true}
	bounded = blocktest.Config{MaxSize: 1 << 20, Bounded: true}
)

// freeList returns a Locked FreeList of up to 64 pages.
func freeList(t testing.TB, parent blockalloc.Allocator) blockalloc.Allocator {
	list, err := blockalloc.NewFreeList(parent, page, 64)
	if err != nil {
		t.Fatal(err)
	}
	return blockalloc.NewLocked(list)
}

func TestCompositions(t *testing.T) {
	for _, c := range compositions {
		t.Run(c.name+"/Bare", func(t *testing.T) {
			t.Parallel()
			holds(t, c.config, c.alone, c.make)
		})
		t.Run(c.name+"/Proxy", func(t *testing.T) {
			t.Parallel()
			config := c.config
			config.LiveBytes = func(a blockalloc.Allocator) int64 { return a.(*alloctrace.Proxy).Stats().LiveBytes }
			holds(t, config, c.alone, func(t testing.TB, root blockalloc.Allocator) blockalloc.Allocator {
				observer := newLedger(t)
				p := alloctrace.Wrap(c.make(t, root), alloctrace.WithHooks(observer))
				t.Cleanup(observer.empty)
				return p.WithContext(t.Context())
			})
		})
	}
}

// holds runs the suite over a composition.
func holds(t *testing.T, c blocktest.Config, alone bool, alloc func(testing.TB, blockalloc.Allocator) blockalloc.Allocator) {
	c.New = func(t testing.TB) blockalloc.Allocator {
		a := alloc(t, newRoot(t))
		t.Cleanup(func() { closeAll(t, a) })
		return a
	}
	if alone {
		c.NewOver = func(t testing.TB, parent blockalloc.Allocator) (blockalloc.Allocator, error) {
			return alloc(t, parent), nil
		}
	}
	blocktest.Run(t, c)
}

// closeAll closes the allocators from a down that can be closed, and checks that, as
// far as they count, no block is live.
func closeAll(t testing.TB, a blockalloc.Allocator) {
	t.Helper()
	if c, ok := a.(interface{ Close() error }); ok {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	for inner := range blockalloc.Inner(a) {
		closeAll(t, inner)
	}
	if l, ok := a.(*blockalloc.Limit); ok && l.Used() != 0 {
		t.Errorf("%v: %d bytes are used in the end", l, l.Used())
	}
}
