package alloctest

import (
	"fmt"
	"os"
	"runtime"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// BenchmarkOptions prints what a pair of 4 KiB costs by option, in A and on top of a
// Heap's own, and how much of the Go heap a live block takes beside its own bytes.
func BenchmarkOptions(b *testing.B) {
	options := []struct {
		name string
		opts []Option
	}{
		{"counted", []Option{WithStacks(Off)}},
		{"stacks_sampled", []Option{WithStacks(Sampled)}},
		{"stacks_full", []Option{WithStacks(Full)}},
		{"debug", []Option{WithStacks(Full), WithDebug(debug.Options{})}},
		{"guard", []Option{WithStacks(Full), WithDebug(debug.Options{Guard: true})}},
		{"paranoid", []Option{WithStacks(Full), WithDebug(*paranoid(debug.Options{}))}},
	}
	page := blockalloc.BlockLayout(4096)
	pairs := func(mem blockalloc.Allocator) func(int) {
		return func(n int) {
			for range n {
				block, err := mem.Allocate(page)
				if err == nil {
					err = mem.Free(block)
				}
				if err != nil {
					b.Fatal(err)
				}
			}
		}
	}
	for b.Loop() {
		subjects := []measure.Subject{measure.Atomic(), {Name: "heap", Turn: 200, Run: pairs(new(blockalloc.Heap))}}
		for _, o := range options {
			subjects = append(subjects, measure.Subject{Name: o.name, Turn: 50, Run: pairs(New(b, o.opts...))})
		}
		times := measure.Run(256, subjects)
		fmt.Println()
		for _, o := range options {
			measure.Row(os.Stdout, b, "alloctest_"+o.name+"_over_heap", times.Over(o.name, "heap", "atomic"), "A", measure.NoBound)
		}
		for _, o := range options {
			measure.Row(os.Stdout, b, "alloctest_"+o.name+"_memory", memory(b, New(b, o.opts...)), "B/block", measure.NoBound)
		}
	}
}

// memory returns how many bytes of the Go heap each of many live blocks takes beside
// its own.
func memory(b *testing.B, mem *alloctrace.Proxy) float64 {
	const n, size = 2000, 64
	var before, after runtime.MemStats
	blocks := make([]blockalloc.Block, n)
	runtime.GC()
	runtime.ReadMemStats(&before)
	for i := range blocks {
		var err error
		if blocks[i], err = mem.Allocate(blockalloc.Layout{Size: size, Align: 8}); err != nil {
			b.Fatal(err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	for _, block := range blocks {
		if err := mem.Free(block); err != nil {
			b.Fatal(err)
		}
	}
	return (float64(after.HeapAlloc) - float64(before.HeapAlloc)) / n
}
