//go:build cgo && unix

// Package cmalloc allocates blocks by C's posix_memalign, as programs do that
// share memory with C.
package cmalloc

/*
#define _POSIX_C_SOURCE 200112L
#include <stdlib.h>

static void *allocate(size_t align, size_t size) {
	void *p;
	return posix_memalign(&p, align < sizeof(void *) ? sizeof(void *) : align, size) == 0 ? p : NULL;
}
*/
import "C"

import (
	"fmt"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// Allocator is a [blockalloc.Allocator] but for one thing: like C's free it does
// not know a block that is not live.
type Allocator struct{}

var _ blockalloc.Allocator = Allocator{}

// Allocate calls posix_memalign, and clears the block if that was asked for.
func (Allocator) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	if err := l.Check(); err != nil {
		return blockalloc.Block{}, err
	}
	if l.Size == 0 {
		return blockalloc.Block{}, nil
	}
	p := C.allocate(C.size_t(l.Align), C.size_t(l.Size))
	if p == nil {
		return blockalloc.Block{}, fmt.Errorf("cmalloc: Allocate(%v): %w", l, blockalloc.ErrOutOfMemory)
	}
	b, err := blockalloc.NewBlock(unsafe.Pointer(p), l.Size, l)
	if l.Zeroed {
		clear(b.Bytes())
	}
	return b, err
}

// Reallocate allocates, copies and frees: C's realloc does not keep an alignment.
func (a Allocator) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	if b.IsZero() {
		return b, fmt.Errorf("cmalloc: Reallocate of the empty block: %w", blockalloc.ErrBadLayout)
	}
	l := b.Layout()
	l.Size = size
	n, err := a.Allocate(l)
	if err != nil {
		return b, err
	}
	copy(n.Bytes(), b.Bytes())
	return n, a.Free(b)
}

// Free calls free.
func (Allocator) Free(b blockalloc.Block) error {
	C.free(b.Pointer())
	return nil
}
