//go:build unix || windows

package blockalloc_test

import (
	"errors"
	"fmt"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// Memory that grows while others have pointers into it, and counts as large as it is.
func ExampleReserved() {
	limit := blockalloc.NewLimit(&blockalloc.Reserved{Max: 256 << 20}, 1<<20)
	b, err := limit.Allocate(blockalloc.BlockLayout(64 << 10))
	if err != nil {
		panic(err)
	}
	first := b.Pointer()
	for err == nil {
		b, err = blockalloc.Resize(limit, b, b.Size()+64<<10)
	}
	fmt.Println(errors.Is(err, blockalloc.ErrLimit), b.Size(), limit.Used(), b.Pointer() == first)
	b, err = blockalloc.Resize(limit, b, 64<<10) // gives memory back
	fmt.Println(err, limit.Used(), limit.Free(b))
	// Output:
	// true 1048576 1048576 true
	// <nil> 65536 <nil>
}
