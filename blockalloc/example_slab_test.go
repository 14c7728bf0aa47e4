package blockalloc_test

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// A virtual machine allocates objects of any size, and finds the object that a
// pointer to one of its fields points into.
func ExampleSlab() {
	slab, err := blockalloc.NewSlab(blockalloc.Default(), 64<<10)
	if err != nil {
		fmt.Println(err)
		return
	}
	object, err := slab.Allocate(blockalloc.Layout{Size: 100, Align: 8})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("granted:", object.Size())

	field := unsafe.Add(object.Pointer(), 40)
	found, ok := slab.Find(field)
	fmt.Println("found:", ok, found.Addr() == object.Addr(), found.Size())

	fmt.Println("close refused:", errors.Is(slab.Close(), blockalloc.ErrLive))
	fmt.Println("free:", slab.Free(object))
	fmt.Println("second free refused:", errors.Is(slab.Free(object), blockalloc.ErrDoubleFree))
	fmt.Println("close:", slab.Close())
	// Output:
	// granted: 112
	// found: true true 112
	// close refused: true
	// free: <nil>
	// second free refused: true
	// close: <nil>
}
