// Package inner is what package adapter allocates and frees by.
package inner

import "github.com/alloctrace/alloctrace/blockalloc"

// Allocate returns a block of size bytes, and panics if there is none.
//
//go:noinline
func Allocate(a blockalloc.Allocator, size uintptr) blockalloc.Block {
	b, err := a.Allocate(blockalloc.Layout{Size: size, Align: 8})
	if err != nil {
		panic(err)
	}
	return b
}

// Free frees a block, and returns the error.
//
//go:noinline
func Free(a blockalloc.Allocator, b blockalloc.Block) error { return a.Free(b) }
