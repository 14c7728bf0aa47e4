package guard_test

import (
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/blockalloc/guard"
	"github.com/alloctrace/alloctrace/internal/measure"
	"github.com/alloctrace/alloctrace/internal/pages"
	_ "github.com/alloctrace/alloctrace/internal/short" // long tests
)

// newRoot returns a new allocator with memory of its own, outside the Go heap where
// that can be had and the race detector need not see it.
func newRoot() blockalloc.Allocator {
	if pages.Supported && !measure.Race {
		return new(blockalloc.System)
	}
	return new(blockalloc.Heap)
}

// newAllocator returns an Allocator whose address space is given back when the test ends. Unless the
// options say otherwise, a report fails the test.
func newAllocator(t testing.TB, inner blockalloc.Allocator, o guard.Options) *guard.Allocator {
	if o.OnReport == nil {
		o.OnReport = func(r *debug.Report) { t.Errorf("false alarm: %v", r) }
	}
	a := guard.New(inner, o)
	a.Release(t)
	return a
}

// reports returns an Allocator that guards every block, and the reports that it makes.
func reports(t testing.TB) (*guard.Allocator, *[]*debug.Report) {
	list := new([]*debug.Report)
	return newAllocator(t, blockalloc.Null{}, guard.Options{Rate: 1, OnReport: func(r *debug.Report) { *list = append(*list, r) }}), list
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

// pointer returns the pointer to a byte so far from the start of b, which may be outside b.
//
//go:nocheckptr
func pointer(b blockalloc.Block, offset int) *byte { return (*byte)(unsafe.Add(b.Pointer(), offset)) }

func pointerTo(b blockalloc.Block, offset int) unsafe.Pointer {
	return unsafe.Pointer(pointer(b, offset))
}
