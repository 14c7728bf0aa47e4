package blockalloc_test

import (
	"context"
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

// Two stages of a pipeline share 10 KB: the first waits until the second has done with what
// it was given.
func ExampleLimit_AllocateContext() {
	mem := blockalloc.NewLimit(&blockalloc.Heap{}, 10_000)
	ctx := context.Background()
	made := make(chan blockalloc.Block)
	go func() {
		defer close(made)
		for range 5 {
			b, err := mem.AllocateContext(ctx, blockalloc.BlockLayout(4<<10))
			if err != nil {
				fmt.Println(err)
				return
			}
			made <- b
		}
	}()
	blocks := 0
	for b := range made {
		blocks++
		if err := mem.Free(b); err != nil {
			fmt.Println(err)
		}
	}
	fmt.Println(blocks, "blocks of 4 KiB,", mem.Used(), "bytes in use")
	// Output: 5 blocks of 4 KiB, 0 bytes in use
}
