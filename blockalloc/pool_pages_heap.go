//go:build !(unix || windows) || race

package blockalloc

import "unsafe"

// The sizes of chunks and of the largest run with more than one block, as log2, and how
// many chunks are reserved at once at most. The garbage collector frees whole pieces
// only, and so a piece is one chunk.
const (
	chunkShift  = 22
	maxRunShift = 18
	arenaChunks = 1
)

// heapPages takes chunks from the Go heap: on platforms that have nothing else, and
// under the race detector, which sees no other blocks. Pointers to a chunk keep it
// alive.
type heapPages struct{}

// purgeZeroes says that a pageSource's pages are zero after purge.
const purgeZeroes = false

func (p *Pool) newPageSource() pageSource { return heapPages{} }

func (heapPages) reserve(size uintptr) (unsafe.Pointer, error) {
	mem := make([]byte, size+chunkSize-1)
	p := unsafe.Pointer(unsafe.SliceData(mem))
	return unsafe.Add(p, roundUp(uintptr(p), chunkSize)-uintptr(p)), nil
}

func (heapPages) commit(unsafe.Pointer, uintptr) error { return nil }

func (heapPages) purge(unsafe.Pointer, uintptr) error { return nil }

func (heapPages) release(unsafe.Pointer, uintptr) error { return nil }

type poolHeap struct{ Heap }

// large serves what is too large for a chunk.
func (p *Pool) large() *Heap { return &p.heap.Heap }

var defaultAllocator Allocator = &Heap{}
