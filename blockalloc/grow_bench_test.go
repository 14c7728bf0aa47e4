package blockalloc_test

import (
	"os"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// BenchmarkGrowth grows one block from 1 MiB to 256 MiB in steps of 64 KiB, as a WebAssembly module does with its
// memory, and touches each page. It is measured beside append, and beside a block that is as large from
// the start, whose pages are touched by as many steps.
func BenchmarkGrowth(b *testing.B) {
	const first, last, step = 1 << 20, 256 << 20, 64 << 10
	for b.Loop() {
		once := func(name string, grow func() error) measure.Subject {
			return measure.Subject{Name: name, Turn: 1, Run: func(int) {
				if err := grow(); err != nil {
					b.Fatalf("%s: %v", name, err)
				}
			}}
		}
		touch := func(mem []byte) {
			for i := 0; i < len(mem); i += 4096 {
				mem[i] = 1
			}
		}
		growth := func(name string, a blockalloc.Allocator) measure.Subject {
			return once(name, func() error {
				block, err := a.Allocate(blockalloc.Layout{Size: first, Align: step})
				if err != nil {
					return err
				}
				touch(block.Bytes())
				for size := uintptr(first + step); size <= last; size += step {
					if block, err = a.Reallocate(block, size); err != nil {
						return err
					}
					touch(block.Bytes()[size-step : size])
				}
				return a.Free(block)
			})
		}
		pool := &blockalloc.Pool{MaxCached: -1}
		times := measure.Run(5, []measure.Subject{
			once("reservation", func() error {
				var s blockalloc.System
				block, err := s.Allocate(blockalloc.Layout{Size: last, Align: step})
				for size := 0; err == nil && size < last; size += step {
					touch(block.Bytes()[size : size+step])
				}
				if err != nil {
					return err
				}
				return s.Free(block)
			}),
			once("append", func() error {
				mem := make([]byte, first)
				touch(mem)
				for len(mem) < last {
					mem = append(mem, make([]byte, step)...)
					touch(mem[len(mem)-step:])
				}
				return nil
			}),
			growth("System", new(blockalloc.System)),
			growth("Pool", pool),
			growth("Limit of Pool", blockalloc.NewLimit(pool, last)),
			growth("Limit of System", blockalloc.NewLimit(new(blockalloc.System), last)),
			growth("Reserved", &blockalloc.Reserved{Max: last}),
			growth("Proxy of Limit of Reserved", alloctrace.Wrap(blockalloc.NewLimit(&blockalloc.Reserved{Max: last}, last))),
		})
		measure.Row(os.Stdout, b, "growth_reservation", times.Median("reservation")/1e6, "ms", measure.NoBound)
		measure.Row(os.Stdout, b, "growth_append", times.Ratio("append", "reservation"), "x", measure.NoBound)
		for _, name := range []string{"System", "Pool", "Limit of Pool", "Limit of System", "Reserved", "Proxy of Limit of Reserved"} {
			measure.Row(os.Stdout, b, "growth_"+name, times.Ratio(name, "reservation"), "x", 1.10)
		}
		if err := pool.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
