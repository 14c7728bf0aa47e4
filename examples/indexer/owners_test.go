package main

import (
	"context"
	"errors"
	"reflect"
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/tracer"
)

// refusing is an allocator whose frees and reallocations fail while err is set.
type refusing struct {
	blockalloc.Allocator
	err error
}

func (r *refusing) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	if r.err != nil {
		return b, r.err
	}
	return r.Allocator.Reallocate(b, size)
}

func (r *refusing) Free(b blockalloc.Block) error {
	if r.err != nil {
		return r.err
	}
	return r.Allocator.Free(b)
}

func TestOwners(t *testing.T) {
	inner := &refusing{Allocator: new(blockalloc.Heap)}
	o := newProfile()
	mem := alloctest.New(t, alloctest.WithAllocator(inner), alloctest.WithProxy(alloctrace.WithHooks(o)))
	want := func(what string, leaks ...leak) {
		t.Helper()
		if got := leaksOf(o); len(got)+len(leaks) > 0 && !reflect.DeepEqual(got, leaks) {
			t.Errorf("%s: leaks are %v, want %v", what, got, leaks)
		}
	}
	allocate := func(from blockalloc.Allocator, size uintptr) blockalloc.Block {
		t.Helper()
		b, err := from.Allocate(blockalloc.BlockLayout(size))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	ctx, outer := tracer.Start(context.Background(), "outer", mem)
	_, inside := tracer.Start(ctx, "inside", outer.Allocator())
	a := allocate(outer.Allocator(), 4096)
	b := allocate(inside.Allocator(), 8192)
	c := allocate(mem, 16384)
	want("allocated", leak{"inside", 1, 8192}, leak{"no region", 1, 16384}, leak{"outer", 1, 4096})

	inner.err = errors.New("not today")
	if err := outer.Allocator().Free(b); !errors.Is(err, inner.err) {
		t.Errorf("free: %v", err)
	}
	if _, err := outer.Allocator().Reallocate(b, 4096); !errors.Is(err, inner.err) {
		t.Errorf("reallocate: %v", err)
	}
	want("failures taken back", leak{"inside", 1, 8192}, leak{"no region", 1, 16384}, leak{"outer", 1, 4096})
	inner.err = nil

	bigger, err := outer.Allocator().Reallocate(b, 32768)
	if err != nil {
		t.Fatal(err)
	}
	want("reallocated by another region", leak{"no region", 1, 16384}, leak{"outer", 2, 4096 + 32768})
	if err := mem.Free(b); err == nil {
		t.Error("a block was freed after it was reallocated")
	}
	for range 2 { // the second is refused and must not bring it back
		err = inside.Allocator().Free(bigger)
	}
	if !errors.Is(err, blockalloc.ErrDoubleFree) && !errors.Is(err, blockalloc.ErrNotOwned) {
		t.Errorf("second free: %v", err)
	}
	if _, err := mem.Reallocate(bigger, 1); err == nil {
		t.Error("a freed block was reallocated")
	}
	want("freed", leak{"no region", 1, 16384}, leak{"outer", 1, 4096})

	if _, err := mem.Reallocate(c, 0); err != nil {
		t.Error(err)
	}
	if err := mem.Free(a); err != nil {
		t.Error(err)
	}
	want("at the end")
}

// TestOwnersConcurrently has regions allocate and free at the same time, where
// addresses go from one to the other.
func TestOwnersConcurrently(t *testing.T) {
	o := newProfile()
	mem := alloctest.New(t, alloctest.WithProxy(alloctrace.WithHooks(o)))
	kept := make([]blockalloc.Block, 8)
	var wg sync.WaitGroup
	for i := range kept {
		wg.Go(func() {
			_, region := tracer.Start(context.Background(), string(rune('a'+i)), mem)
			for range 2000 {
				b, err := region.Allocator().Allocate(blockalloc.BlockLayout(4096))
				if err == nil {
					err = region.Allocator().Free(b)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
			kept[i], _ = region.Allocator().Allocate(blockalloc.BlockLayout(4096 << i))
		})
	}
	wg.Wait()
	leaks := leaksOf(o)
	for i := range kept {
		if want := (leak{string(rune('a' + i)), 1, 4096 << i}); len(leaks) != len(kept) || leaks[i] != want {
			t.Fatalf("leaks are %v, want the one block that each region kept", leaks)
		}
		if err := mem.Free(kept[i]); err != nil {
			t.Error(err)
		}
	}
	if leaks := leaksOf(o); len(leaks) != 0 {
		t.Errorf("leaks are %v when all is freed", leaks)
	}
}
