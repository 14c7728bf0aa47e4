//go:build cgo && unix

package peers

import (
	"fmt"
	"os"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/math"
	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/arrowmem"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// sumBatches builds n columns of as many rows as a row group of Parquet often has,
// page by page as a reader does, and adds each up with Arrow's kernel.
func sumBatches(mem memory.Allocator, page []float64, n int) (sum float64) {
	const rows = 128 << 10
	for range n {
		builder := array.NewFloat64Builder(mem)
		for range rows / len(page) {
			builder.AppendValues(page, nil)
		}
		column := builder.NewFloat64Array()
		sum += math.Float64.Sum(column)
		column.Release()
		builder.Release()
	}
	return sum
}

// TestWorkload: the workload gives the same with every allocator, and gives all memory
// back.
func TestWorkload(t *testing.T) {
	page := newPage()
	want := sumBatches(memory.NewGoAllocator(), page, 2)
	pool := &blockalloc.Pool{}
	for name, mem := range map[string]blockalloc.Allocator{"pool": pool, "everything": everything(pool), "heap": &blockalloc.Heap{}} {
		if got := sumBatches(arrowmem.New(mem), page, 2); got != want {
			t.Errorf("%s: the sum is %v, want %v", name, got, want)
		}
	}
	if err := pool.Close(); err != nil {
		t.Error(err)
	}
}

func newPage() []float64 {
	page := make([]float64, 8<<10)
	for i := range page {
		page[i] = float64(i) / 3
	}
	return page
}

// BenchmarkWorkload prints what it costs to build and add up columns of numbers, by
// allocator: against Arrow's own, and with everything on against ours bare.
func BenchmarkWorkload(b *testing.B) {
	page := newPage()
	workload := func(mem memory.Allocator) func(int) {
		return func(n int) { sumBatches(mem, page, n) }
	}
	for b.Loop() {
		times := measure.Run(301, []measure.Subject{
			measure.Atomic(),
			{Name: "go", Turn: 2, Run: workload(memory.NewGoAllocator())},
			{Name: "bare", Turn: 2, Run: workload(arrowmem.New(&blockalloc.Pool{}))},
			{Name: "everything", Turn: 2, Run: workload(arrowmem.New(everything(&blockalloc.Pool{})))},
		})
		fmt.Println()
		measure.Row(os.Stdout, b, "arrow_sum_bare_over_go", times.Ratio("bare", "go"), "x", 1)
		measure.Row(os.Stdout, b, "arrow_sum_everything_over_bare", times.Ratio("everything", "bare"), "x", 1.03)
		measure.Row(os.Stdout, b, "arrow_sum_everything_over_go", times.Ratio("everything", "go"), "x", 1)
	}
}
