// Cmem counts memory of C's heap, where there is one.
package main

import (
	"errors"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/cmem"
)

func main() {
	mem := alloctrace.Wrap(new(cmem.Malloc))
	b, err := mem.Allocate(blockalloc.Layout{Size: 100, Align: 64, Zeroed: true})
	if errors.Is(err, errors.ErrUnsupported) {
		return
	}
	if err != nil || b.Size() < 100 || b.Bytes()[99] != 0 || mem.Stats().LiveBlocks != 1 {
		panic(err)
	}
	if err := errors.Join(mem.Free(b), mem.Close()); err != nil {
		panic(err)
	}
}
