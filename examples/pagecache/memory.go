package main

import (
	"context"
	"unsafe"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// observed returns memory of inner, of which at most limit bytes are live. Each purpose is a child of the Proxy. The limit is
// above the Proxy: that a page must be evicted is nothing that has failed, and is neither counted nor traced as such.
func observed(proxy *alloctrace.Proxy, limit int64) memory {
	bound := blockalloc.NewLimit(proxy, limit)
	parts := make(map[string]*alloctrace.Proxy)
	for _, purpose := range []string{forPages, forIndex, forMemtable} {
		parts[purpose] = proxy.Child(purpose)
	}
	return func(ctx context.Context, purpose string) blockalloc.Allocator {
		return bound.Rewrap(func(blockalloc.Allocator) blockalloc.Allocator { return parts[purpose].WithContext(ctx) })
	}
}

// onGoHeap returns memory of make, of which at most limit bytes are live, and which nobody observes: what the
// same program is without this library.
func onGoHeap(limit int64) memory {
	bound := blockalloc.NewLimit(goHeap{}, limit)
	return func(context.Context, string) blockalloc.Allocator { return bound }
}

// goHeap is an allocator of make. The garbage collector frees a block that nobody refers to.
type goHeap struct{}

func (goHeap) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	if l.Size == 0 || l.Check() != nil {
		return blockalloc.Block{}, l.Check()
	}
	b := unsafe.Pointer(unsafe.SliceData(make([]byte, l.Size)))
	if past := uintptr(b) & (l.Align - 1); past != 0 { // pages of 4 KiB and 8 KiB are aligned
		b = unsafe.Pointer(unsafe.SliceData(make([]byte, l.Size+l.Align)))
		b = unsafe.Add(b, (l.Align-uintptr(b)&(l.Align-1))&(l.Align-1))
	}
	return blockalloc.NewBlock(b, l.Size, l)
}

func (h goHeap) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	l := b.Layout()
	l.Size = size
	n, err := h.Allocate(l)
	if err != nil {
		return b, err
	}
	copy(n.Bytes(), b.Bytes())
	return n, nil
}

func (goHeap) Free(blockalloc.Block) error { return nil }
