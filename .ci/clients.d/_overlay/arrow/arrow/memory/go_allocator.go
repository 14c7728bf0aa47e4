package memory

import (
	"alloctrace.example/clients/memory"

	"github.com/alloctrace/alloctrace/blockalloc/arrowmem"
)

var shared = arrowmem.New(memory.Default())

// GoAllocator is what DefaultAllocator and NewGoAllocator are. Here its memory is alloctrace's.
type GoAllocator struct{}

func NewGoAllocator() *GoAllocator { return &GoAllocator{} }

func (*GoAllocator) Allocate(size int) []byte             { return shared.Allocate(size) }
func (*GoAllocator) Reallocate(size int, b []byte) []byte { return shared.Reallocate(size, b) }
func (*GoAllocator) Free(b []byte)                        { shared.Free(b) }

var _ Allocator = (*GoAllocator)(nil)
