// Expvars publishes the counters at /debug/vars.
package main

import (
	"expvar"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/expvars"
)

func main() {
	if err := expvars.Publish(alloctrace.Wrap(blockalloc.Default()), "offheap"); err != nil || expvar.Get("offheap") == nil {
		panic(err)
	}
}
