//go:build cgo && unix

package cmem_test

import (
	"context"
	"fmt"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/cmem"
	"github.com/alloctrace/alloctrace/blockalloc/cmem/internal/ctest"
)

// Memory that goes to C and comes from there is counted while it is Go's.
func Example() {
	mem := alloctrace.Wrap(new(cmem.Malloc))
	b, err := mem.Allocate(blockalloc.Layout{Size: 100, Align: 8, Zeroed: true})
	if err != nil {
		panic(err)
	}
	copy(b.Bytes(), "for C")
	p, err := cmem.IntoC(mem, b) // C frees it
	if err != nil {
		panic(err)
	}
	var list ctest.List
	list.Push(p)
	fmt.Println(mem.Stats().LiveBlocks, "live;", list.End(), "bytes in C")

	p = ctest.Join("from", " C") // Go frees it
	b, err = cmem.FromC(context.Background(), mem, p, 7)
	if err != nil {
		panic(err)
	}
	fmt.Println(mem.Stats().LiveBlocks, "live:", string(b.Bytes()[:6]))
	if err := mem.Free(b); err != nil {
		panic(err)
	}
	// Output:
	// 0 live; 5 bytes in C
	// 1 live: from C
}
