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

// Allocate calls posix_memalign. The block is not zeroed.
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
	return blockalloc.FromRaw(unsafe.Pointer(p), l)
}

// Reallocate allocates, copies and frees: C's realloc does not keep an alignment.
func (a Allocator) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	if b.IsZero() {
		return b, fmt.Errorf("cmalloc: Reallocate of the empty block: %w", blockalloc.ErrBadLayout)
	}
	n, err := a.Allocate(blockalloc.Layout{Size: size, Align: b.Align()})
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
