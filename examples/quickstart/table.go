package main

import (
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// An element is what a table may hold: nothing with a Go pointer in it, for the
// garbage collector does not look into blocks.
type element interface {
	byte | uint32 | uint64 | source
}

// A table is a list outside the Go heap, in one block that doubles when it is
// full. Set mem before the first element. The items must not be used after the
// table has grown or is freed.
type table[T element] struct {
	mem   blockalloc.Allocator
	block blockalloc.Block
	items []T // lies in block
}

// tableSize is the size of a new table's block, in bytes, and its alignment.
const tableSize = 4 << 10

// add appends items. If there is no memory for them, the table stays as it is.
func (t *table[T]) add(items ...T) error {
	if err := t.reserve(len(t.items) + len(items)); err != nil {
		return err
	}
	t.items = append(t.items, items...) // fits: append does not move it to the Go heap
	return nil
}

// reserve makes room for n items in all.
func (t *table[T]) reserve(n int) error {
	if n <= cap(t.items) {
		return nil
	}
	var item T
	size := max(tableSize, 2*t.block.Size())
	for size/unsafe.Sizeof(item) < uintptr(n) {
		size *= 2
	}
	var b blockalloc.Block
	var err error
	if t.block.IsZero() {
		b, err = t.mem.Allocate(blockalloc.Layout{Size: size, Align: tableSize})
	} else {
		b, err = t.mem.Reallocate(t.block, size)
	}
	if err != nil {
		return err
	}
	t.block = b
	t.items = unsafe.Slice((*T)(b.Pointer()), b.Size()/unsafe.Sizeof(item))[:len(t.items)]
	return nil
}

// free gives the block back through mem, which may be another region's allocator
// than the one it came from.
func (t *table[T]) free(mem blockalloc.Allocator) error {
	b := t.block
	t.block, t.items = blockalloc.Block{}, nil
	return mem.Free(b)
}
