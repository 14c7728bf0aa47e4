package blockalloc_test

import (
	"fmt"

	"github.com/alloctrace/alloctrace/blockalloc"
)

func ExampleTree() {
	buffers, err := blockalloc.NewFreeList(&blockalloc.Heap{}, blockalloc.BlockLayout(64<<10), 1000)
	if err != nil {
		fmt.Println(err)
		return
	}
	mem := blockalloc.NewFallback(
		blockalloc.NewLocked(buffers),
		blockalloc.NewLimit(&blockalloc.System{}, 1<<30),
	)
	fmt.Println(blockalloc.Tree(mem))
	// Output:
	// Fallback
	// ├── Locked
	// │   └── FreeList
	// │       └── Heap
	// └── Limit 1.0 GiB
	//     └── System
}
