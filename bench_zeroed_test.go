package alloctrace_test

import (
	"os"
	"slices"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// zeroedRows prints what zeroed blocks cost, where their memory is clean and where it is dirty, beside plain
// blocks, and plain ones that are cleared by hand.
func zeroedRows(b *testing.B) {
	row := func(name string, value float64, bound float64) {
		measure.Row(os.Stdout, b, name, value, "x", bound)
	}
	plain, asked := blockalloc.BlockLayout(4<<10), blockalloc.Layout{Size: 4 << 10, Align: 4 << 10, Zeroed: true}
	row("zeroed_clean_over_plain", cleanPairs(b, func() blockalloc.Allocator { return &blockalloc.Pool{} }, plain, asked), 1.1)
	row("zeroed_clean_proxy_over_plain", cleanPairs(b, func() blockalloc.Allocator { return alloctrace.Wrap(&blockalloc.Pool{}) }, plain, asked), 1.1)
	for _, size := range []struct {
		name string
		size uintptr
	}{{"4k", 4 << 10}, {"1m", 1 << 20}} {
		pool := &blockalloc.Pool{}
		pairs := func(name string, clearAll bool, l blockalloc.Layout) measure.Subject {
			return measure.Subject{Name: name, Run: func(n int) {
				for range n {
					b, _ := pool.Allocate(l)
					if clearAll {
						clear(b.Bytes())
					}
					_ = pool.Free(b)
				}
			}}
		}
		l := blockalloc.BlockLayout(size.size)
		zeroed := l
		zeroed.Zeroed = true
		times := measure.Run(201, []measure.Subject{pairs("plain", false, l), pairs("by hand", true, l), pairs("zeroed", false, zeroed)})
		row("zeroed_dirty_"+size.name+"_over_by_hand", times.Ratio("zeroed", "by hand"), 1.2)
		row("zeroed_dirty_"+size.name+"_over_plain", times.Ratio("zeroed", "plain"), measure.NoBound)
	}
}

// cleanPairs returns how many times the cost of plain blocks zeroed ones cost, where all blocks are fresh.
func cleanPairs(b *testing.B, pool func() blockalloc.Allocator, plain, zeroed blockalloc.Layout) float64 {
	const blocks, rounds = 4096, 101
	mem := pool()
	held := make([]blockalloc.Block, blocks)
	take := func(l blockalloc.Layout) float64 {
		start := time.Now()
		for i := range held {
			held[i], _ = mem.Allocate(l)
		}
		for i := range held {
			_ = mem.Free(held[i])
		}
		took := time.Since(start)
		bottom := mem
		if p, ok := mem.(*alloctrace.Proxy); ok {
			bottom = p.Unwrap()
		}
		if err := bottom.(*blockalloc.Pool).Trim(); err != nil { // then all are clean again
			b.Fatal(err)
		}
		return float64(took)
	}
	ratios := make([]float64, rounds)
	for i := range ratios {
		if i%2 == 0 {
			first := take(plain)
			ratios[i] = take(zeroed) / first
		} else {
			first := take(zeroed)
			ratios[i] = first / take(plain)
		}
	}
	slices.Sort(ratios)
	return ratios[rounds/2]
}
