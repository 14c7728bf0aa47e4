package blockalloc_test

import (
	"fmt"

	"github.com/alloctrace/alloctrace/blockalloc"
)

func ExampleFallback() {
	quick := blockalloc.NewLimit(&blockalloc.Heap{}, 8<<10)
	mem := blockalloc.NewFallback(quick, &blockalloc.Heap{})
	for i := range 3 {
		b, err := mem.Allocate(blockalloc.BlockLayout(4 << 10))
		if err != nil {
			fmt.Println(err)
			return
		}
		fmt.Printf("block %d comes from the first: %t\n", i, quick.Owns(b))
	}
	// Output:
	// block 0 comes from the first: true
	// block 1 comes from the first: true
	// block 2 comes from the first: false
}
