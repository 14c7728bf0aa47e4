package blockalloc_test

import (
	"errors"
	"runtime"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
)

// hasSystem says that System serves this platform.
const hasSystem = runtime.GOOS != "js" && runtime.GOOS != "wasip1" && runtime.GOOS != "plan9"

func TestConformance(t *testing.T) {
	allocators := map[string]func(testing.TB) blockalloc.Allocator{
		"Heap": func(testing.TB) blockalloc.Allocator { return &blockalloc.Heap{} },
	}
	if hasSystem {
		allocators["System"] = func(testing.TB) blockalloc.Allocator { return &blockalloc.System{} }
	}
	maxSize := uintptr(1 << 30)
	if runtime.GOARCH == "wasm" {
		maxSize = 16 << 20
	}
	for name, alloc := range allocators {
		t.Run(name, func(t *testing.T) {
			maxSize := maxSize
			if name == "Heap" && testing.Short() {
				maxSize = min(maxSize, 16<<20) // the Go heap clears memory that it has had before, and so takes all of it
			}
			blocktest.Run(t, blocktest.Config{New: alloc, Zeroed: true, MaxSize: maxSize})
		})
	}
}

// TestHeapIsExact: a Heap grants what is asked for, no more.
func TestHeapIsExact(t *testing.T) {
	var h blockalloc.Heap
	b, err := h.Allocate(blockalloc.Layout{Size: 5000, Align: 64})
	for _, size := range []uintptr{5000, 4999, 5001, 1} {
		if err != nil {
			t.Fatal(err)
		}
		if b, err = h.Reallocate(b, size); b.Size() != size {
			t.Errorf("Reallocate to %d bytes = %v, %v", size, b, err)
		}
	}
}

func TestNull(t *testing.T) {
	var null blockalloc.Null
	if b, err := null.Allocate(blockalloc.Layout{Size: 0, Align: 8}); err != nil || !b.IsZero() {
		t.Errorf("Allocate of size 0 = %v, %v", b, err)
	}
	if _, err := null.Allocate(blockalloc.BlockLayout(1)); !errors.Is(err, blockalloc.ErrOutOfMemory) {
		t.Errorf("Allocate: error %v, want ErrOutOfMemory", err)
	}
	if _, err := null.Allocate(blockalloc.BlockLayout(999)); !errors.Is(err, blockalloc.ErrBadLayout) {
		t.Errorf("Allocate of a bad layout: error %v, want ErrBadLayout", err)
	}
	if err := null.Free(blockalloc.Block{}); err != nil {
		t.Errorf("Free of the empty block: %v", err)
	}
	if _, err := null.Reallocate(blockalloc.Block{}, 8); !errors.Is(err, blockalloc.ErrBadLayout) {
		t.Errorf("Reallocate of the empty block: error %v, want ErrBadLayout", err)
	}
	b, err := new(blockalloc.Heap).Allocate(blockalloc.BlockLayout(64))
	if err != nil {
		t.Fatal(err)
	}
	if err := null.Free(b); !errors.Is(err, blockalloc.ErrNotOwned) {
		t.Errorf("Free: error %v, want ErrNotOwned", err)
	}
	if n, err := null.Reallocate(b, 8); !errors.Is(err, blockalloc.ErrNotOwned) || n != b {
		t.Errorf("Reallocate = %v, %v; want the block and ErrNotOwned", n, err)
	}
	if null.Owns(b) {
		t.Error("Null owns a block")
	}
}

func TestFromRawRefuses(t *testing.T) {
	b, err := new(blockalloc.Heap).Allocate(blockalloc.BlockLayout(64))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []blockalloc.Layout{{Size: 64, Align: 999}, {Size: 0, Align: 64}} {
		if _, err := blockalloc.FromRaw(b.Pointer(), l); !errors.Is(err, blockalloc.ErrBadLayout) {
			t.Errorf("FromRaw(%v): error %v, want ErrBadLayout", l, err)
		}
	}
	if _, err := blockalloc.FromRaw(nil, b.Layout()); !errors.Is(err, blockalloc.ErrBadLayout) {
		t.Errorf("FromRaw(nil): error %v, want ErrBadLayout", err)
	}
	inner, _ := blockalloc.FromRaw(b.Pointer(), blockalloc.Layout{Size: 64, Align: 1})
	if _, err := blockalloc.FromRaw(unsafe.Pointer(&inner.Bytes()[1]), blockalloc.BlockLayout(64)); !errors.Is(err, blockalloc.ErrBadLayout) {
		t.Errorf("FromRaw of an unaligned pointer: error %v, want ErrBadLayout", err)
	}
}
