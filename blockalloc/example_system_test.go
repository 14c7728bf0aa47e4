//go:build unix || windows

package blockalloc_test

import (
	"fmt"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// Memory that is to stay out of core dumps and swap, as far as the system grants
// that.
func ExampleSystem() {
	mem := &blockalloc.System{NoDump: true, Lock: true}
	b, err := mem.Allocate(blockalloc.Layout{Size: 100, Align: 64})
	if err != nil {
		panic(err)
	}
	for _, r := range mem.Options() {
		fmt.Println(r.Option, r.Taken+r.Refused)
	}
	fmt.Println(b.Size() >= 4096, mem.Free(b))
	// Output:
	// NoDump 1
	// Lock 1
	// true <nil>
}
