package history_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/exporters/recording/history"
)

func Example() {
	dir, err := os.MkdirTemp("", "")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "server.alloctrace")
	rec, err := recording.Create(path, recording.Options{})
	if err != nil {
		log.Fatal(err)
	}
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithName("mem"), alloctrace.WithHooks(rec))
	for i := range 10 {
		b, err := mem.Child("cache").Allocate(blockalloc.Layout{Size: 4096, Align: 8})
		if err == nil && i > 2 {
			err = mem.Free(b)
		}
		if err != nil {
			log.Fatal(err)
		}
	}
	if err := rec.Close(); err != nil {
		log.Fatal(err)
	}

	r, err := history.Open(path, false)
	if err != nil {
		log.Fatal(err)
	}
	for _, site := range history.FindLeaks(r, history.Options{}).Sites {
		fmt.Printf("%s: %d of %d blocks are live, %d bytes\n", site.Child, site.Live.Blocks, site.Allocated.Blocks, site.Live.Bytes)
	}
	// Output:
	// cache: 3 of 10 blocks are live, 12288 bytes
}
