// Recording writes a block's events to a file, and reads them.
package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/recording"
)

func main() {
	dir, err := os.MkdirTemp("", "consumer")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "a.alloctrace")
	rec, err := recording.Create(path, recording.Options{})
	if err != nil {
		panic(err)
	}
	mem := alloctrace.Wrap(blockalloc.Default(), alloctrace.WithHooks(rec))
	b, err := mem.Allocate(blockalloc.BlockLayout(4096))
	if err == nil {
		err = mem.Free(b)
	}
	if err == nil {
		err = rec.Close()
	}
	if err != nil {
		panic(err)
	}
	r, err := recording.Open(path)
	if err != nil {
		panic(err)
	}
	defer r.Close()
	n := 0
	for _, err := range r.Events() {
		if err != nil {
			panic(err)
		}
		n++
	}
	if n != 2 {
		panic(fmt.Sprint(n, " events"))
	}
}
