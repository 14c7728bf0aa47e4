package blockalloc_test

import (
	"errors"
	"fmt"

	"github.com/alloctrace/alloctrace/blockalloc"
)

func ExampleLimit() {
	mem := blockalloc.NewLimit(&blockalloc.Heap{}, 10_000)
	if _, err := mem.Allocate(blockalloc.BlockLayout(8 << 10)); err != nil {
		fmt.Println(err)
		return
	}
	_, err := mem.Allocate(blockalloc.BlockLayout(4 << 10))
	fmt.Println(errors.Is(err, blockalloc.ErrLimit))
	fmt.Println(err)

	mem.SetMax(20_000)
	_, err = mem.Allocate(blockalloc.BlockLayout(4 << 10))
	fmt.Println(mem.Used(), "of", mem.Max(), err)
	// Output:
	// true
	// blockalloc: Limit.Allocate(4096 B aligned to 4096): out of memory: limit reached: 4096 B requested, 8192 B used, limit 10000 B: free blocks or raise it by SetMax
	// 12288 of 20000 <nil>
}
