// Rss explains the resident memory.
package main

import (
	"runtime"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/rss"
)

func main() {
	report, err := rss.Read(alloctrace.Wrap(blockalloc.Default(), alloctrace.WithName("cache")))
	if runtime.GOOS == "linux" && (err != nil || report.Go() == 0) {
		panic(err)
	}
}
