package counter

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/alloctrace/alloctrace/internal/shard"
)

// manyProcs raises GOMAXPROCS to n, so that goroutines change processors often.
func manyProcs(t *testing.T, n int) {
	procs := runtime.GOMAXPROCS(n)
	t.Cleanup(func() { runtime.GOMAXPROCS(procs) })
}

// collect runs the garbage collector again and again until end is called. Before that
// nothing can be logged where there is one thread.
func collect() (end func()) {
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		for !stop.Load() {
			runtime.GC()
			runtime.Gosched()
		}
	}()
	return func() {
		stop.Store(true)
		<-done
	}
}

// TestReallocateWhileGrowing: no reallocation is lost while shards get counts and the
// garbage collector moves goroutines to other processors. CI tries more Counters.
func TestReallocateWhileGrowing(t *testing.T) {
	counters := 500
	if os.Getenv("ALLOCTRACE_REQUIRE_ALL") != "" {
		counters = 100_000
	}
	manyProcs(t, 8)
	defer collect()()
	const goroutines, each = 8, 100
	want := Stats{
		Reallocations:  goroutines * each,
		RequestedBytes: goroutines * each * 4096,
		AllocatedBytes: goroutines * each * 4096,
		FreedBytes:     goroutines * each * 4096,
	}
	want.Classes[12] = Class{goroutines * each, goroutines * each}
	for n := range counters {
		var c Counter
		var wg sync.WaitGroup
		for range goroutines {
			wg.Go(func() {
				for range each {
					c.Reallocate(4096, 4096, 4096, 4096)
				}
			})
		}
		wg.Wait()
		got := c.Stats()
		want.PeakBytes, want.PeakBound = got.PeakBytes, got.PeakBound
		if got != want {
			t.Fatalf("Counter %d: %+v, want %+v", n, got, want)
		}
	}
}

// TestProcAfterCount: what count returns is the processor on which the caller is, also
// where it came to another one while its shard got counts.
func TestProcAfterCount(t *testing.T) {
	manyProcs(t, 8)
	end := collect()
	var moved atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 500 {
				var c Counter
				for range busy {
					p := shard.Pin()
					before := p.Index
					p = c.count(p, allocated, 4096, 4096)
					now := shard.Pin() // pinned twice, so that it cannot be another
					if shard.Pinned && p.Index != now.Index {
						t.Errorf("count returned processor %d, and the caller is on %d; it was on %d", p.Index, now.Index, before)
					}
					if p.Index != before {
						moved.Add(1)
					}
					now.Unpin()
					p.Unpin()
				}
			}
		})
	}
	wg.Wait()
	end()
	t.Logf("%d goroutines came to other processors", moved.Load())
}
