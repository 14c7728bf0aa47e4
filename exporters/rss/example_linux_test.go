package rss_test

import (
	"fmt"
	"os"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/rss"
)

func ExampleRead() {
	mem := alloctrace.Wrap(new(blockalloc.System), alloctrace.WithName("cache"))
	block, err := mem.Allocate(blockalloc.BlockLayout(8 << 20))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer mem.Free(block)
	for i := 0; i < 2<<20; i += os.Getpagesize() { // a quarter of it gets memory
		block.Bytes()[i] = 1
	}

	report, err := rss.Read(mem)
	if err != nil {
		fmt.Println(err)
		return
	}
	cache := report.Allocators[0]
	fmt.Println(cache.Name, cache.Live>>20, "MiB live", cache.Resident>>20, "MiB resident")
	fmt.Println(report.Go()+report.Tracked+report.Files+report.Unattributed == report.RSS)
	// Output:
	// cache 8 MiB live 2 MiB resident
	// true
}
