// Memlimit keeps Go's memory limit below a budget less what is off-heap.
package main

import (
	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/memlimit"
)

func main() {
	mem := alloctrace.Wrap(blockalloc.Default())
	limiter, err := memlimit.New(memlimit.Options{Budget: 1 << 30}, mem)
	if err != nil {
		panic(err)
	}
	limiter.Close()
}
