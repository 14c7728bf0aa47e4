package blockalloc_test

import (
	"fmt"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// A Pool makes blocks of powers of two, aligned to their size, and keeps what is freed
// for the next who asks.
func ExamplePool() {
	pool := &blockalloc.Pool{MaxCached: 8 << 20} // keep at most 8 MiB of freed blocks
	block, err := pool.Allocate(blockalloc.Layout{Size: 100_000, Align: 4096})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("granted %d B at a multiple of it: %v\n", block.Size(), block.Addr()%block.Size() == 0)

	larger, err := pool.Reallocate(block, 120_000)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("a larger size within what was granted stays in place:", larger.Addr() == block.Addr())
	copy(larger.Bytes(), "off the Go heap")
	fmt.Println("in use:", pool.Stats().LiveBytes)

	fmt.Println("closed with a live block:", pool.Close() != nil)
	if err := pool.Free(larger); err != nil {
		fmt.Println(err)
	}
	fmt.Println("in use:", pool.Stats().LiveBytes, "cached:", pool.Stats().Cached)
	if err := pool.Trim(); err != nil { // gives memory and address space back
		fmt.Println(err)
	}
	fmt.Println("cached:", pool.Stats().Cached)
	fmt.Println("closed:", pool.Close() == nil)
	// Output:
	// granted 131072 B at a multiple of it: true
	// a larger size within what was granted stays in place: true
	// in use: 131072
	// closed with a live block: true
	// in use: 0 cached: 131072
	// cached: 0
	// closed: true
}
