package failing_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
)

func never(failing.Call) bool { return false }

func TestConforms(t *testing.T) {
	for name, wrap := range map[string]func(blockalloc.Allocator) blockalloc.Allocator{
		"After": func(parent blockalloc.Allocator) blockalloc.Allocator { return failing.After(parent, 1<<40) },
		"Every": func(parent blockalloc.Allocator) blockalloc.Allocator { return failing.Every(parent, 1<<40) },
		"If":    func(parent blockalloc.Allocator) blockalloc.Allocator { return failing.If(parent, never) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			blocktest.Run(t, blocktest.Config{
				MaxSize: 16 << 20, Zeroed: true,
				New: func(testing.TB) blockalloc.Allocator { return wrap(new(blockalloc.Heap)) },
				NewOver: func(_ testing.TB, parent blockalloc.Allocator) (blockalloc.Allocator, error) {
					return wrap(parent), nil
				},
			})
		})
	}
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

// TestPlans: which calls fail, by example. Free does not count.
func TestPlans(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(blockalloc.Allocator) *failing.Allocator
		want []bool // of ten calls, Allocate and Reallocate in turn
	}{
		{"failing.After(0)", func(a blockalloc.Allocator) *failing.Allocator { return failing.After(a, 0) },
			[]bool{false, false, false, false, false, false, false, false, false, false}},
		{"failing.After(3)", func(a blockalloc.Allocator) *failing.Allocator { return failing.After(a, 3) },
			[]bool{true, true, true, false, false, false, false, false, false, false}},
		{"failing.Every(1)", func(a blockalloc.Allocator) *failing.Allocator { return failing.Every(a, 1) },
			[]bool{false, false, false, false, false, false, false, false, false, false}},
		{"failing.Every(3)", func(a blockalloc.Allocator) *failing.Allocator { return failing.Every(a, 3) },
			[]bool{true, true, false, true, true, false, true, true, false, true}},
	} {
		heap := alloctest.New(t)
		f := c.make(heap)
		held := mustAllocate(t, heap, 64, 64)
		var got []bool
		for i := range 10 {
			var err error
			if i%2 == 0 {
				var b blockalloc.Block
				if b, err = f.Allocate(blockalloc.BlockLayout(64)); err == nil {
					mustFree(t, f, b)
				} else if !b.IsZero() {
					t.Errorf("%s: a failed Allocate returns %v", c.name, b)
				}
			} else {
				var n blockalloc.Block
				if n, err = f.Reallocate(held, held.Size()+8); err != nil && n != held {
					t.Errorf("%s: a failed Reallocate returns %v, want %v", c.name, n, held)
				}
				held = n
			}
			if err != nil && (!errors.Is(err, failing.ErrInjected) || !errors.Is(err, blockalloc.ErrOutOfMemory)) {
				t.Errorf("%s: error %v, want ErrInjected and ErrOutOfMemory", c.name, err)
			}
			got = append(got, err == nil)
		}
		failed := int64(0)
		for _, ok := range c.want {
			if !ok {
				failed++
			}
		}
		if !slices.Equal(got, c.want) || f.Calls() != 10 || f.Injected() != failed {
			t.Errorf("%s serves %v with %d calls and %d failures\nwant   %v with 10 and %d", c.name, got, f.Calls(), f.Injected(), c.want, failed)
		}
		if f.String() != c.name {
			t.Errorf("String = %q, want %q", f.String(), c.name)
		}
		mustFree(t, f, held)
	}
}

// TestIf: the function sees each call as it is, and a failure leaves the block
// as it was.
func TestIf(t *testing.T) {
	heap := alloctest.New(t, alloctest.WithAllocator(new(blockalloc.Heap)))
	var calls []failing.Call
	fail := false
	f := failing.If(heap, func(c failing.Call) bool {
		calls = append(calls, c)
		return fail
	})
	b := mustAllocate(t, f, 100, 4)
	b.Bytes()[0] = 1
	fail = true
	n, err := f.Reallocate(b, 200)
	if !errors.Is(err, failing.ErrInjected) || !errors.Is(err, blockalloc.ErrOutOfMemory) || n != b {
		t.Errorf("Reallocate = %v, %v; want the block, ErrInjected and ErrOutOfMemory", n, err)
	}
	err = f.Free(b)
	if !errors.Is(err, failing.ErrInjected) || errors.Is(err, blockalloc.ErrOutOfMemory) {
		t.Errorf("Free: error %v, want ErrInjected alone", err)
	}
	if !heap.Owns(b) || !f.Owns(b) || b.Bytes()[0] != 1 {
		t.Error("the block was lost")
	}
	want := []failing.Call{
		{Op: failing.OpAllocate, Layout: blockalloc.Layout{Size: 100, Align: 4}},
		{Op: failing.OpReallocate, Layout: blockalloc.Layout{Size: 200, Align: 4}, Block: b},
		{Op: failing.OpFree, Layout: b.Layout(), Block: b},
	}
	if !slices.Equal(calls, want) || f.Calls() != 3 || f.Injected() != 2 {
		t.Errorf("%d calls, %d failures: %v\nwant 3 and 2: %v", f.Calls(), f.Injected(), calls, want)
	}

	// The contract comes first: empty results, bad layouts and unknown blocks.
	if n, err := f.Allocate(blockalloc.Layout{Size: 0, Align: 8}); err != nil || !n.IsZero() {
		t.Errorf("Allocate of size zero = %v, %v", n, err)
	}
	if err := f.Free(blockalloc.Block{}); err != nil {
		t.Errorf("Free of the empty block: %v", err)
	}
	if _, err := f.Allocate(blockalloc.BlockLayout(999)); !errors.Is(err, blockalloc.ErrBadLayout) {
		t.Errorf("Allocate of a bad layout: error %v", err)
	}
	if n, err := f.Reallocate(b, ^uintptr(0)); !errors.Is(err, blockalloc.ErrBadLayout) || n != b {
		t.Errorf("Reallocate to a bad layout = %v, %v", n, err)
	}
	if _, err := f.Reallocate(blockalloc.Block{}, 8); !errors.Is(err, blockalloc.ErrBadLayout) {
		t.Errorf("Reallocate of the empty block: error %v", err)
	}
	if f.Calls() != 3 {
		t.Errorf("%d calls, want 3: these cannot fail", f.Calls())
	}
	if n, err := f.Reallocate(b, 0); err != nil || !n.IsZero() || heap.Owns(b) {
		t.Errorf("Reallocate to zero = %v, %v", n, err)
	}
	if err := f.Free(b); !errors.Is(err, blockalloc.ErrDoubleFree) {
		t.Errorf("Free of a freed block: error %v, want ErrDoubleFree", err)
	}
	if n, err := f.Reallocate(b, 8); !errors.Is(err, blockalloc.ErrDoubleFree) || n != b {
		t.Errorf("Reallocate of a freed block = %v, %v; want the block and ErrDoubleFree", n, err)
	}
	if f.Injected() != 2 {
		t.Errorf("%d failures, want 2", f.Injected())
	}
}

// TestNested: injectors compose; the outer one decides first, and what it
// fails does not reach the inner one.
func TestNested(t *testing.T) {
	inner := failing.After(alloctest.New(t), 4)
	outer := failing.Every(inner, 2)
	var got []bool
	for range 10 {
		b, err := outer.Allocate(blockalloc.BlockLayout(8))
		got = append(got, err == nil)
		mustFree(t, outer, b)
	}
	if want := []bool{true, false, true, false, true, false, true, false, false, false}; !slices.Equal(got, want) {
		t.Errorf("served %v, want %v", got, want)
	}
	if outer.Calls() != 10 || outer.Injected() != 5 || inner.Calls() != 5 || inner.Injected() != 1 {
		t.Errorf("outer: %d of %d failed, inner: %d of %d; want 5 of 10 and 1 of 5", outer.Injected(), outer.Calls(), inner.Injected(), inner.Calls())
	}
}

// TestConcurrent: how many fail is exact, through views too.
func TestConcurrent(t *testing.T) {
	const workers, rounds = 8, 1000
	for _, c := range []struct {
		f      *failing.Allocator
		served int64
	}{
		{failing.After(alloctest.New(t), 1234), 1234},
		{failing.Every(alloctest.New(t), 7), workers*rounds - workers*rounds/7},
	} {
		view := c.f.Rewrap(func(a blockalloc.Allocator) blockalloc.Allocator { return a })
		var served atomic.Int64
		var wg sync.WaitGroup
		for w := range workers {
			a := blockalloc.Allocator(c.f)
			if w%2 == 0 {
				a = view
			}
			wg.Go(func() {
				for range rounds {
					b, err := a.Allocate(blockalloc.BlockLayout(8))
					if err != nil {
						continue
					}
					served.Add(1)
					mustFree(t, a, b)
				}
			})
		}
		wg.Wait()
		if served.Load() != c.served || c.f.Calls() != workers*rounds || c.f.Injected() != workers*rounds-c.served {
			t.Errorf("%v served %d of %d and failed %d, want %d served", c.f, served.Load(), c.f.Calls(), c.f.Injected(), c.served)
		}
	}
}

func TestPanics(t *testing.T) {
	var h blockalloc.Heap
	for want, f := range map[string]func(){
		"failing: After(-1): pass how many":       func() { failing.After(&h, -1) },
		"failing: Every(0): pass 1":               func() { failing.Every(&h, 0) },
		"failing: If: f is nil: pass a function ": func() { failing.If(&h, nil) },
	} {
		func() {
			defer func() {
				if got := fmt.Sprint(recover()); !strings.HasPrefix(got, want) {
					t.Errorf("panic %q, want one that begins with %q", got, want)
				}
			}()
			f()
		}()
	}
}

func TestOp(t *testing.T) {
	for op, want := range map[failing.Op]string{
		failing.OpAllocate: "Allocate", failing.OpReallocate: "Reallocate", failing.OpFree: "Free", 99: "Op(99)",
	} {
		if op.String() != want {
			t.Errorf("Op %d is %q, want %q", int(op), op, want)
		}
	}
}
