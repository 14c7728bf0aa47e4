// Racy writes memory of Arrow's CheckedAllocator in two goroutines at once.
package main

import (
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/bugs"
)

type onArrow struct{ memory *memory.CheckedAllocator }

func (a onArrow) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	return blockalloc.NewBlock(unsafe.Pointer(unsafe.SliceData(a.memory.Allocate(int(l.Size)))), l.Size, l)
}

func (onArrow) Reallocate(b blockalloc.Block, _ uintptr) (blockalloc.Block, error) { return b, nil }

func (a onArrow) Free(b blockalloc.Block) error {
	a.memory.Free(b.Bytes())
	return nil
}

func main() {
	_ = bugs.Named("race on block bytes").Plant(onArrow{memory.NewCheckedAllocator(memory.NewGoAllocator())}, nil)
}
