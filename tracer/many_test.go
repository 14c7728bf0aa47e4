package tracer_test

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/tracer"
)

// TestManyRegions: of 100,000 regions at once, in which 64 goroutines allocate, free and hand on
// blocks, each has its own numbers, and they add up to the Proxy's. When they have ended nothing
// is left on the Go heap.
func TestManyRegions(t *testing.T) {
	const goroutines, each = 64, 100_000/64 + 1
	mem := alloctrace.Wrap(new(blockalloc.Heap))
	child := mem.Child("child")
	before := heapInUse()
	func() {
		type open struct {
			ctx       context.Context
			region    *tracer.Region
			allocated int64
		}
		regions := make([][]open, goroutines)
		handed := make(chan blockalloc.Block, 4*goroutines)
		var all sync.WaitGroup
		for g := range goroutines {
			all.Go(func() {
				rnd := rand.New(rand.NewPCG(5, uint64(g)))
				for range each {
					ctx, r := tracer.Start(context.Background(), "request", mem)
					regions[g] = append(regions[g], open{ctx, r, 0})
				}
				for i := range regions[g] {
					of := &regions[g][i]
					for range 3 {
						a := []*alloctrace.Proxy{mem, child}[rnd.IntN(2)]
						b, err := a.AllocateContext(of.ctx, blockalloc.BlockLayout(8<<rnd.IntN(4)))
						if err != nil {
							t.Error(err)
							return
						}
						of.allocated += int64(b.Size())
						to := regions[g][rnd.IntN(len(regions[g]))]
						of.region.Move(b, to.region)
						handed <- b
						b = <-handed // perhaps another goroutine's
						if err := to.region.Allocator().Free(b); err != nil {
							t.Error(err)
							return
						}
					}
				}
			})
		}
		all.Wait()
		var allocated, freed, moved, blocks int64
		for _, list := range regions {
			for _, of := range list {
				s := of.region.Summary()
				if s.AllocatedBytes != of.allocated || s.Allocations != 3 {
					t.Fatalf("a region has %+v, want %d bytes in 3 blocks", s, of.allocated)
				}
				allocated += s.AllocatedBytes
				freed += s.FreedBytes
				moved += s.MovedInBytes - s.MovedOutBytes
				blocks += s.Frees
				of.region.End()
			}
		}
		if s := mem.Stats(); s.AllocatedBytes != allocated || s.FreedBytes != freed || s.Frees != blocks || s.LiveBytes != 0 || moved != 0 {
			t.Errorf("the regions have %d bytes allocated, %d freed in %d blocks, %d moved; the Proxy %v", allocated, freed, blocks, moved, s)
		}
	}()
	if grown := heapInUse() - before; grown > 1<<20 {
		t.Errorf("%d bytes more on the Go heap than before", grown)
	}
}

func heapInUse() int64 {
	var m runtime.MemStats
	for range 2 { // the second one frees what the first one has swept
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
