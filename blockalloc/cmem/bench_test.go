//go:build cgo && unix

package cmem_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/cmem"
	"github.com/alloctrace/alloctrace/blockalloc/cmem/internal/ctest"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// BenchmarkMalloc prints what a pair of 64 bytes and of 4 KiB costs beside malloc and free themselves, which C calls, and which
// Go calls: a row a measure, name value unit bound ok|over.
func BenchmarkMalloc(b *testing.B) {
	for b.Loop() {
		fmt.Println()
		for _, size := range []uintptr{64, 4 << 10} {
			l := blockalloc.Layout{Size: size, Align: 16}
			pairs := func(name string, a blockalloc.Allocator) measure.Subject {
				return measure.Subject{Name: name, Run: func(n int) {
					for range n {
						block, err := a.Allocate(l)
						if err == nil {
							err = a.Free(block)
						}
						if err != nil {
							b.Fatal(err)
						}
					}
				}}
			}
			pool := new(blockalloc.Pool)
			times := measure.Run(101, []measure.Subject{
				measure.Atomic(),
				{Name: "C", Run: func(n int) { ctest.Pairs(n, size) }},
				{Name: "cgo", Run: func(n int) {
					for range n {
						ctest.Free(ctest.Malloc(size))
					}
				}},
				pairs("Malloc", new(cmem.Malloc)),
				pairs("Proxy", alloctrace.Wrap(new(cmem.Malloc))),
				pairs("Pool", pool),
			})
			if err := pool.Close(); err != nil {
				b.Fatal(err)
			}
			for _, name := range []string{"C", "cgo", "Malloc", "Proxy", "Pool"} {
				measure.Row(os.Stdout, b, fmt.Sprintf("cmem_%d_%s", size, name), times.Ratio(name, "atomic"), "A", measure.NoBound)
			}
			measure.Row(os.Stdout, b, fmt.Sprintf("cmem_%d_over_cgo", size), times.Ratio("Malloc", "cgo"), "x", measure.NoBound)
		}
	}
}
