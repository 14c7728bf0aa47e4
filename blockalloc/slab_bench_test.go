package blockalloc_test

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// onGoroutines runs b.N operations in all, an equal part on each of n goroutines.
func onGoroutines(b *testing.B, n int, run func(operations int)) {
	b.ReportAllocs()
	b.ResetTimer()
	var wg sync.WaitGroup
	for range n {
		wg.Go(func() { run(b.N / n) })
	}
	wg.Wait()
	b.StopTimer()
	measure.ReportUnit(b)
}

func benchSlab(b *testing.B) *blockalloc.Slab {
	s, err := blockalloc.NewSlab(blockalloc.Default(), 64<<10)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		if err := s.Close(); err != nil {
			b.Error(err)
		}
	})
	return s
}

var slabSinks [64]struct {
	mem []byte
	_   [104]byte
}

// BenchmarkSlabPair measures an Allocate and a Free, beside what one would use
// instead.
func BenchmarkSlabPair(b *testing.B) {
	for _, size := range []uintptr{64, 4 << 10, 16 << 10} {
		for _, n := range []int{1, 2} {
			name := func(what string) string { return fmt.Sprintf("%s/%d/goroutines=%d", what, size, n) }
			b.Run(name("slab"), func(b *testing.B) {
				var a blockalloc.Allocator = benchSlab(b)
				l := blockalloc.Layout{Size: size, Align: 8}
				onGoroutines(b, n, func(operations int) {
					for range operations {
						block, _ := a.Allocate(l)
						_ = a.Free(block)
					}
				})
			})
			b.Run(name("syncpool"), func(b *testing.B) {
				pool := sync.Pool{New: func() any { return unsafe.SliceData(make([]byte, size)) }}
				onGoroutines(b, n, func(operations int) {
					for range operations {
						pool.Put(pool.Get())
					}
				})
			})
			b.Run(name("make"), func(b *testing.B) {
				var next atomic.Int64
				onGoroutines(b, n, func(operations int) {
					sink := &slabSinks[next.Add(1)%int64(len(slabSinks))]
					for range operations {
						sink.mem = make([]byte, size)
					}
				})
			})
		}
	}
}

// BenchmarkSlabReplace frees a random block of many and allocates another size. It
// meets full blocks, partly free ones, and memory out of the cache.
func BenchmarkSlabReplace(b *testing.B) {
	for _, live := range []int{1000, 100_000} {
		for _, n := range []int{1, 2} {
			b.Run(fmt.Sprintf("live=%d/goroutines=%d", live, n), func(b *testing.B) {
				s := benchSlab(b)
				var seed atomic.Uint64
				onGoroutines(b, n, func(operations int) {
					rnd := rand.New(rand.NewPCG(1, seed.Add(1)))
					held := make([]blockalloc.Block, live/n)
					for range operations {
						at := rnd.IntN(len(held))
						_ = s.Free(held[at])
						held[at], _ = s.Allocate(blockalloc.Layout{Size: 16 + uintptr(rnd.IntN(240)), Align: 8})
					}
					for _, block := range held {
						_ = s.Free(block)
					}
				})
			})
		}
	}
}

// BenchmarkSlabPassOn has one goroutine allocate what another frees.
func BenchmarkSlabPassOn(b *testing.B) {
	const batch = 100
	s := benchSlab(b)
	blocks := make(chan *[batch]blockalloc.Block, 16)
	spent := make(chan *[batch]blockalloc.Block, 32)
	var wg sync.WaitGroup
	wg.Go(func() {
		for some := range blocks {
			for i := range some {
				_ = s.Free(some[i])
			}
			select {
			case spent <- some:
			default:
			}
		}
	})
	onGoroutines(b, 1, func(operations int) {
		for range (operations + batch - 1) / batch {
			var some *[batch]blockalloc.Block
			select {
			case some = <-spent:
			default:
				some = new([batch]blockalloc.Block)
			}
			for i := range some {
				some[i], _ = s.Allocate(blockalloc.Layout{Size: 64, Align: 8})
			}
			blocks <- some
		}
	})
	close(blocks)
	wg.Wait()
}

func BenchmarkSlabFind(b *testing.B) {
	s := benchSlab(b)
	block, err := s.Allocate(blockalloc.Layout{Size: 100, Align: 8})
	if err != nil {
		b.Fatal(err)
	}
	inner := unsafe.Add(block.Pointer(), 50)
	onGoroutines(b, 1, func(operations int) {
		for range operations {
			if _, ok := s.Find(inner); !ok {
				b.Error("not found")
				return
			}
		}
	})
	_ = s.Free(block)
}

// BenchmarkSlabRefill fills and empties whole blocks of few slots: the worst case for
// locks and calls of the parent.
func BenchmarkSlabRefill(b *testing.B) {
	for _, size := range []uintptr{64, 8 << 10} {
		for _, n := range []int{1, 2} {
			b.Run(fmt.Sprintf("%d/goroutines=%d", size, n), func(b *testing.B) {
				s := benchSlab(b)
				onGoroutines(b, n, func(operations int) {
					held := make([]blockalloc.Block, 4*(64<<10)/size)
					for done := 0; done < operations; done += len(held) {
						for i := range held {
							held[i], _ = s.Allocate(blockalloc.Layout{Size: size, Align: 8})
						}
						for i := range held {
							_ = s.Free(held[i])
						}
					}
				})
			})
		}
	}
}
