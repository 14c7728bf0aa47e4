package blocktest_test

import (
	"math/bits"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
)

// broken is a Heap with one defect.
type broken struct {
	blockalloc.Heap
	allocate   func(*blockalloc.Heap, blockalloc.Layout) (blockalloc.Block, error)
	reallocate func(*blockalloc.Heap, blockalloc.Block, uintptr) (blockalloc.Block, error)
	resize     func(*blockalloc.Heap, blockalloc.Block, uintptr) (blockalloc.Block, error)
	free       func(*blockalloc.Heap, blockalloc.Block) error
	owns       func(blockalloc.Block) bool
	mappings   func([]blockalloc.Mapping) []blockalloc.Mapping
}

func (b *broken) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	if b.allocate != nil {
		return b.allocate(&b.Heap, l)
	}
	return b.Heap.Allocate(l)
}

func (b *broken) Reallocate(old blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	if b.reallocate != nil {
		return b.reallocate(&b.Heap, old, size)
	}
	return b.Heap.Reallocate(old, size)
}

func (b *broken) Resize(old blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	if b.resize != nil {
		return b.resize(&b.Heap, old, size)
	}
	return b.Heap.Resize(old, size)
}

func (b *broken) Free(old blockalloc.Block) error {
	if b.free != nil {
		return b.free(&b.Heap, old)
	}
	return b.Heap.Free(old)
}

func (b *broken) Owns(old blockalloc.Block) bool {
	if b.owns != nil {
		return b.owns(old)
	}
	return b.Heap.Owns(old)
}

func (b *broken) Mappings() []blockalloc.Mapping {
	if b.mappings != nil {
		return b.mappings(b.Heap.Mappings())
	}
	return b.Heap.Mappings()
}

// brokenConfig describes a Heap with the defect that the clause must find.
func brokenConfig(clause string) blocktest.Config {
	return blocktest.Config{
		New:     func(testing.TB) blockalloc.Allocator { return brokenHeaps()[clause] },
		MaxSize: 16 << 20,
		Zeroed:  true,
	}
}

// brokenHeaps are named after the clause that must find the defect.
func brokenHeaps() map[string]*broken {
	var given, newest blockalloc.Block
	return map[string]*broken{
		"Alignment": {allocate: func(h *blockalloc.Heap, l blockalloc.Layout) (blockalloc.Block, error) {
			if l.Check() == nil && l.Align > 64 {
				l.Align = 64
			}
			return h.Allocate(l)
		}},
		"UnevenLayouts": {allocate: func(h *blockalloc.Heap, l blockalloc.Layout) (blockalloc.Block, error) {
			if l.Size > 4096 && l.Size&(l.Size-1) != 0 {
				l.Size = 1 << (bits.Len(uint(l.Size)) - 1)
			}
			return h.Allocate(l)
		}},
		"NoOverlap": {allocate: func(h *blockalloc.Heap, l blockalloc.Layout) (blockalloc.Block, error) {
			if given.IsZero() || l.Size > given.Size() || l.Align != given.Align() || l.Size == 0 {
				b, err := h.Allocate(l)
				given = b
				return b, err
			}
			return given, nil
		}, free: func(*blockalloc.Heap, blockalloc.Block) error { return nil }},
		"ZeroSize": {free: func(h *blockalloc.Heap, b blockalloc.Block) error {
			if b.IsZero() {
				return blockalloc.ErrNotOwned
			}
			return h.Free(b)
		}},
		"BadLayout": {allocate: func(h *blockalloc.Heap, l blockalloc.Layout) (blockalloc.Block, error) {
			if l.Align == 999 {
				l.Align = 1024
			}
			return h.Allocate(l)
		}},
		"OutOfMemory": {allocate: func(h *blockalloc.Heap, l blockalloc.Layout) (blockalloc.Block, error) {
			if l.Size > 1<<30-1 && l.Check() == nil {
				return blockalloc.Block{}, nil
			}
			return h.Allocate(l)
		}},
		"ReallocateKeepsContent": {reallocate: func(h *blockalloc.Heap, b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
			n, err := h.Reallocate(b, size)
			if err == nil && size > 1 {
				n.Bytes()[min(size, b.Size())-1]++
			}
			return n, err
		}},
		"Resize": {resize: func(h *blockalloc.Heap, b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
			if size > 8<<10 && h.Owns(b) {
				return h.Reallocate(b, size) // moves it
			}
			return h.Resize(b, size)
		}},
		"ReallocateToZero": {reallocate: func(h *blockalloc.Heap, b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
			if size == 0 && h.Owns(b) {
				return blockalloc.Block{}, nil // leaks it
			}
			return h.Reallocate(b, size)
		}},
		"FailedReallocate": {reallocate: func(h *blockalloc.Heap, b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
			n, err := h.Reallocate(b, size)
			if err != nil && h.Owns(b) {
				return n, h.Free(b)
			}
			return n, err
		}},
		"DoubleFree":  {free: func(h *blockalloc.Heap, b blockalloc.Block) error { _ = h.Free(b); return nil }},
		"ForeignFree": {free: func(h *blockalloc.Heap, b blockalloc.Block) error { _ = h.Free(b); return nil }},
		"WrongSizeFree": {free: func(h *blockalloc.Heap, b blockalloc.Block) error {
			if whole, err := blockalloc.FromRaw(b.Pointer(), blockalloc.BlockLayout(4<<10)); err == nil && h.Owns(whole) {
				b = whole
			}
			return h.Free(b)
		}},
		"Raw": {allocate: func(h *blockalloc.Heap, l blockalloc.Layout) (blockalloc.Block, error) {
			b, err := h.Allocate(l)
			newest = b
			return b, err
		}, free: func(h *blockalloc.Heap, b blockalloc.Block) error {
			if b.IsZero() {
				b = newest
			}
			return h.Free(b)
		}},
		"Owns": {owns: func(b blockalloc.Block) bool { return !b.IsZero() }},
		"Mappings": {mappings: func(list []blockalloc.Mapping) []blockalloc.Mapping {
			for i := range list {
				if list[i].Size == 16<<20 {
					list[i].Size--
				}
			}
			return list
		}},
		"ZeroedLayout": {allocate: func(h *blockalloc.Heap, l blockalloc.Layout) (blockalloc.Block, error) {
			l.Zeroed = false
			return h.Allocate(l)
		}},
		"ZeroedGrowth": {reallocate: func(h *blockalloc.Heap, b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
			n, err := h.Reallocate(b, size)
			if err == nil && n.Size() > b.Size() {
				n.Bytes()[n.Size()-1] = 1
			}
			return n, err
		}},
		"Zeroed": {allocate: func(h *blockalloc.Heap, l blockalloc.Layout) (blockalloc.Block, error) {
			b, err := h.Allocate(l)
			if err == nil && l.Size == 64<<10 {
				b.Bytes()[l.Size-1] = 1
			}
			return b, err
		}},
	}
}
