package debug_test

import (
	"os"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/internal/measure"
	"github.com/alloctrace/alloctrace/internal/pages"
	_ "github.com/alloctrace/alloctrace/internal/short" // long tests
)

// allModes says to run the conformance suite in all modes, which takes a minute on some
// machines: CI does so once. Otherwise it runs in those modes that include most of the
// others.
var allModes = os.Getenv("ALLOCTRACE_REQUIRE_ALL") != ""

// hasGuards is whether this platform has guard pages.
const hasGuards = pages.Supported

// newAllocator returns an Allocator that is closed when the test ends, without a false alarm.
func newAllocator(t testing.TB, parent blockalloc.Allocator, o debug.Options) *debug.Allocator {
	d := debug.New(parent, o)
	t.Cleanup(func() {
		if err := d.Close(); err != nil && !t.Failed() {
			t.Error(err)
		}
	})
	return d
}

// newRoot returns a new allocator with memory of its own, outside the Go heap where
// that can be had and the race detector need not see it.
func newRoot() blockalloc.Allocator {
	if pages.Supported && !measure.Race {
		return new(blockalloc.System)
	}
	return new(blockalloc.Heap)
}

func newFreeList(t testing.TB, parent blockalloc.Allocator, block blockalloc.Layout, max int) *blockalloc.FreeList {
	t.Helper()
	f, err := blockalloc.NewFreeList(parent, block, max)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
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

// beyond returns the memory from so many bytes after b's start, which may lie
// outside b.
//
//go:nocheckptr
func beyond(b blockalloc.Block, offset, size int) []byte {
	return unsafe.Slice((*byte)(beyondPointer(b, offset)), size)
}

//go:nocheckptr
func beyondPointer(b blockalloc.Block, offset int) unsafe.Pointer {
	return unsafe.Add(b.Pointer(), offset)
}

// roomy is a Heap whose blocks have 8 KiB of room on either side, so that a test
// that writes there does no harm.
type roomy struct {
	blockalloc.Heap
	whole map[uintptr]blockalloc.Block
}

const room = 8 << 10

func (r *roomy) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	front := max(room, l.Align)
	w, err := r.Heap.Allocate(blockalloc.Layout{Size: front + l.Size + room, Align: l.Align})
	if err != nil {
		return w, err
	}
	b, err := blockalloc.NewBlock(unsafe.Add(w.Pointer(), front), l.Size, l)
	if r.whole == nil {
		r.whole = make(map[uintptr]blockalloc.Block)
	}
	r.whole[b.Addr()] = w
	return b, err
}

func (r *roomy) Free(b blockalloc.Block) error {
	w := r.whole[b.Addr()]
	delete(r.whole, b.Addr())
	return r.Heap.Free(w)
}

func mustClose(t testing.TB, d *debug.Allocator) {
	t.Helper()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}
