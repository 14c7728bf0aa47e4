// Root wraps an allocator and reads its counters.
package main

import (
	"fmt"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
)

func main() {
	mem := alloctrace.Wrap(blockalloc.Default())
	b, err := mem.Allocate(blockalloc.BlockLayout(64 << 10))
	if err != nil || mem.Stats().LiveBytes != 64<<10 {
		panic(fmt.Sprint(err, mem.Stats()))
	}
	if err := mem.Free(b); err != nil || mem.Close() != nil {
		panic(err)
	}
}
