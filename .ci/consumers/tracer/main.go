// Tracer has a region of work.
package main

import (
	"context"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/tracer"
)

func main() {
	mem := alloctrace.Wrap(blockalloc.Default())
	_, region := tracer.Start(context.Background(), "load", mem)
	defer region.End()
	b, err := region.Allocator().Allocate(blockalloc.BlockLayout(4096))
	if err != nil || mem.Free(b) != nil {
		panic(err)
	}
}
