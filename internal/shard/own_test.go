package shard

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
)

// TestNumProcs has more goroutines than processors add to the words of the shards that they are
// in, while the number of processors changes and the garbage collector stops them
// all: nothing that was added is lost.
func TestNumProcs(t *testing.T) {
	additions := int64(200_000)
	if testing.Short() {
		additions = 20_000
	}
	procs := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(procs)
	words := make([]struct {
		atomic.Int64
		_ [56]byte
	}, NumProcs)
	var elsewhere atomic.Int64 // for processors beyond NumProcs
	var adding, turning sync.WaitGroup
	const goroutines = 8
	for g := range goroutines {
		adding.Go(func() {
			for i := range additions {
				p := Pin()
				if p.Index < NumProcs {
					p.Add(&words[p.Index].Int64, 1)
				} else {
					elsewhere.Add(1)
				}
				p.Unpin()
				if (i+int64(g))%1000 == 0 {
					runtime.Gosched()
				}
			}
		})
	}
	var stop atomic.Bool
	turning.Go(func() {
		for n := 0; !stop.Load(); n++ {
			runtime.GOMAXPROCS(1 + n%(procs+2))
			if n%8 == 0 {
				runtime.GC()
			}
			runtime.Gosched()
		}
	})
	adding.Wait()
	stop.Store(true)
	turning.Wait()
	sum := elsewhere.Load()
	for i := range words {
		sum += words[i].Load()
	}
	if want := goroutines * additions; sum != want {
		t.Errorf("the shards have %d additions, want %d", sum, want)
	}
}

// TestAdd: the sum is what is loaded then, whatever its sign.
func TestAdd(t *testing.T) {
	var w atomic.Int64
	var want int64
	for _, n := range []int64{1, -3, 1 << 62, -1 << 62, 0} {
		want += n
		p := Pin()
		got := p.Add(&w, n)
		p.Unpin()
		if got != want || w.Load() != want {
			t.Errorf("after %d the sum is %d, and %d is loaded; want %d", n, got, w.Load(), want)
		}
	}
}
