//go:build gc && !race && !alloctrace_nolinkname && (amd64 || arm64)

package shard

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// TestExclusive: who is in a shard is not interrupted before it leaves, though
// somebody wants the world to stop.
func TestExclusive(t *testing.T) {
	procs := runtime.GOMAXPROCS(2)
	defer runtime.GOMAXPROCS(procs)
	for range 5 {
		var ready, entered, stopped atomic.Bool
		done := make(chan struct{})
		go func() {
			defer close(done)
			ready.Store(true)
			for !entered.Load() {
			}
			var stats runtime.MemStats
			runtime.ReadMemStats(&stats) // stops the world
			stopped.Store(true)
		}()
		for !ready.Load() {
			runtime.Gosched()
		}
		p := Pin()
		entered.Store(true)
		for start := time.Now(); time.Since(start) < 2*time.Millisecond && !stopped.Load(); {
		}
		interrupted := stopped.Load()
		p.Unpin()
		<-done
		if interrupted {
			t.Fatal("the world was stopped while somebody was in a shard")
		}
	}
}

// TestEntered: shards have numbers from zero, of which Own are those of processors.
func TestEntered(t *testing.T) {
	procs := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(procs)
	p := Pin()
	p.Unpin()
	if i := p.Index; i != 0 || Own < procs || Own < runtime.NumCPU() {
		t.Errorf("on one processor the shard is %d, and there are %d for %d processors of %d", i, Own, procs, runtime.NumCPU())
	}
}
