package main

import (
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/examples/scheme/vm"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// BenchmarkBinaryTrees prints what the memory behind the heap costs a program that does little but allocate, a row a
// measure: blocks of a Pool, of the Go heap, and of a Pool behind a Proxy and a Limit.
func BenchmarkBinaryTrees(b *testing.B) {
	text, err := os.ReadFile("testdata/binary-trees.scm")
	if err != nil {
		b.Fatal(err)
	}
	trees := func(name string, mem blockalloc.Allocator) measure.Subject {
		return measure.Subject{Name: name, Turn: 1, Run: func(n int) {
			for range n {
				m, err := vm.New(vm.Options{
					Memory: func(string) blockalloc.Allocator { return mem },
					Out:    io.Discard, Args: []string{"binary-trees", "10"},
				})
				if err != nil {
					b.Fatal(err)
				}
				err = m.Run(strings.NewReader(string(text)), nil)
				if err := errors.Join(err, m.Close()); err != nil {
					b.Fatal(err)
				}
			}
		}}
	}
	for b.Loop() {
		times := measure.Run(21, []measure.Subject{
			trees("pool", &blockalloc.Pool{}),
			trees("go", &blockalloc.Heap{}),
			trees("observed", alloctrace.Wrap(blockalloc.NewLimit(&blockalloc.Pool{}, 1<<30))),
		})
		measure.Row(os.Stdout, b, "trees_go_over_pool", times.Ratio("go", "pool"), "x", measure.NoBound)
		measure.Row(os.Stdout, b, "trees_observed_over_pool", times.Ratio("observed", "pool"), "x", 1.03)
	}
}
