package blockalloc_test

import (
	"errors"
	"runtime"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
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

// TestReallocateRaw: what Reallocate makes of a raw block in its place is not raw, and what it refuses it returns as it was given.
func TestReallocateRaw(t *testing.T) {
	raw := func(b blockalloc.Block) blockalloc.Block {
		b, err := blockalloc.FromRaw(b.IntoRaw())
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	heap := new(blockalloc.Heap)
	b := mustAllocate(t, heap, 100, 8)
	for name, again := range map[string]func(blockalloc.Block, uintptr) (blockalloc.Block, error){"Reallocate": heap.Reallocate, "Resize": heap.Resize} {
		if n, err := again(raw(b), 100); err != nil || n != b {
			t.Errorf("Heap.%s to the same size = %v, raw: %t, %v; want the block, not raw", name, n, n.IsRaw(), err)
		}
	}
	mustFree(t, heap, b)

	full := false
	slab, err := blockalloc.NewSlab(failing.If(alloctest.New(t), func(failing.Call) bool { return full }), 4<<10)
	if err != nil {
		t.Fatal(err)
	}
	b = raw(mustAllocate(t, slab, 30, 1)) // of a slot of 32
	full = true
	for _, size := range []uintptr{200, 2000} { // of another class, and of none
		if n, err := slab.Reallocate(b, size); !errors.Is(err, failing.ErrInjected) || n != b {
			t.Errorf("Slab.Reallocate(%v, %d) without memory = %v, raw: %t, %v; want it as it was given", b, size, n, n.IsRaw(), err)
		}
	}
	full = false
	mustFree(t, slab, b)
	if err := slab.Close(); err != nil {
		t.Error(err)
	}
}
