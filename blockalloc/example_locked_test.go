package blockalloc_test

import (
	"fmt"
	"sync"

	"github.com/alloctrace/alloctrace/blockalloc"
)

func ExampleLocked() {
	bump, err := blockalloc.NewBump(&blockalloc.Heap{}, 1<<20)
	if err != nil {
		fmt.Println(err)
		return
	}
	mem := blockalloc.NewLocked(bump) // which alone is for one goroutine at a time
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if _, err := mem.Allocate(blockalloc.Layout{Size: 100, Align: 4}); err != nil {
				fmt.Println(err)
			}
		})
	}
	wg.Wait()
	fmt.Println(bump.Used())
	fmt.Println(bump.Close())
	// Output:
	// 400
	// <nil>
}
