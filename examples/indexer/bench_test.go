package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/ring"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// indexOnce indexes a folder in one goroutine, and frees the index.
func indexOnce(in folder, mem blockalloc.Allocator) error {
	var next atomic.Int64
	files := newPaths(mem)
	x := index{parts: []*part{newPart(mem)}}
	return errors.Join(
		in.walk(files.add),
		x.fill(context.Background(), x.parts[0], mem, in, files, &next),
		x.free(mem),
		files.free(mem),
	)
}

// BenchmarkIndex prints what observing costs where memory is not all there is to
// do, a row a measure: name value unit bound ok|over. Package net/http of the standard
// library and those below are indexed in memory of the Go heap, of a Pool, and of a Pool with all
// that is there to be left on in production.
func BenchmarkIndex(b *testing.B) {
	in, err := openFolder("")
	if err != nil {
		b.Fatal(err)
	}
	in.dir = filepath.Join(in.dir, "net", "http")
	work := func(mem blockalloc.Allocator) func(int) {
		return func(n int) {
			for range n {
				if err := indexOnce(in, mem); err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	for b.Loop() {
		times := measure.Run(201, []measure.Subject{
			{Name: "go", Turn: 1, Run: work(&blockalloc.Heap{})},
			{Name: "bare", Turn: 1, Run: work(&blockalloc.Pool{})},
			{Name: "everything", Turn: 1, Run: work(alloctrace.Wrap(&blockalloc.Pool{}, alloctrace.WithHooks(ring.New(1024, nil))))},
		})
		fmt.Println()
		measure.Row(os.Stdout, b, "index_bare_over_go", times.Ratio("bare", "go"), "x", 1)
		measure.Row(os.Stdout, b, "index_everything_over_bare", times.Ratio("everything", "bare"), "x", 1.03)
		measure.Row(os.Stdout, b, "index_everything_over_go", times.Ratio("everything", "go"), "x", 1)
	}
}
