package blockalloc_test

import (
	"fmt"

	"github.com/alloctrace/alloctrace/blockalloc"
)

func ExampleSegregate() {
	small, large := &blockalloc.Heap{}, blockalloc.Default()
	mem := blockalloc.NewSegregate(small, large, 4<<10)
	b, err := mem.Allocate(blockalloc.Layout{Size: 100, Align: 8})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("small:", small.Owns(b))
	if b, err = mem.Reallocate(b, 1<<20); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("small:", small.Owns(b))
	fmt.Println(mem.Free(b))
	// Output:
	// small: true
	// small: false
	// <nil>
}
