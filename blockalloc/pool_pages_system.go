//go:build (unix || windows) && !race

package blockalloc

import (
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/pages"
)

// The sizes of chunks and of the largest run with more than one block, as log2, and how
// many chunks are reserved at once at most: 1 GiB, or 64 MiB with 32-bit addresses.
const (
	chunkShift  = 22 + 4*int(wide)
	maxRunShift = 20 + 2*int(wide)
	arenaChunks = 16
)

// systemPages takes pages from the operating system and applies System's options.
type systemPages struct{ system *System }

// purgeZeroes says that a pageSource's pages are zero after purge.
const purgeZeroes = pages.PurgeZeroes

func (p *Pool) newPageSource() pageSource { return systemPages{&p.System} }

func (systemPages) reserve(size uintptr) (unsafe.Pointer, error) {
	return pages.Reserve(size, chunkSize)
}

func (s systemPages) commit(p unsafe.Pointer, size uintptr) error {
	if err := pages.Commit(p, size); err != nil {
		return err
	}
	s.system.apply(Block{ptr: p, size: size})
	return nil
}

func (systemPages) purge(p unsafe.Pointer, size uintptr) error { return pages.Purge(p, size) }

func (systemPages) release(p unsafe.Pointer, size uintptr) error { return pages.Unmap(p, size) }

//lint:ignore U1000 see pool_pages_heap.go
type poolHeap struct{}

// large serves what is too large for a chunk.
func (p *Pool) large() *System { return &p.System }

var defaultAllocator Allocator = &Pool{}
