package blockalloc_test

import (
	"errors"
	"fmt"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// A block aligned to its size is found from any pointer into it by a mask.
func ExampleHeap() {
	var mem blockalloc.Heap
	b, err := mem.Allocate(blockalloc.BlockLayout(4096))
	if err != nil {
		panic(err)
	}
	inside := b.Addr() + 1234
	fmt.Println(inside&^(4096-1) == b.Addr())
	fmt.Println(mem.Free(b))
	fmt.Println(errors.Is(mem.Free(b), blockalloc.ErrDoubleFree))
	// Output:
	// true
	// <nil>
	// true
}

// Null ends a chain of allocators, and shows how a program takes a refusal.
func ExampleNull() {
	var mem blockalloc.Null
	_, err := mem.Allocate(blockalloc.BlockLayout(4096))
	fmt.Println(err)
	// Output:
	// blockalloc: Null.Allocate(4096 B aligned to 4096): out of memory
}
