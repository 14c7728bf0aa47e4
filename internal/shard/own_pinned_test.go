//go:build gc && !race && !alloctrace_nolinkname && (amd64 || arm64)

package shard

import (
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

// TestPinned: who is in a shard is not interrupted before it leaves, though
// somebody wants the world to stop.
func TestPinned(t *testing.T) {
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

// TestEntered: shards have numbers from zero, of which NumProcs are those of processors.
func TestEntered(t *testing.T) {
	procs := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(procs)
	p := Pin()
	p.Unpin()
	if i := p.Index; i != 0 || NumProcs < procs || NumProcs < runtime.NumCPU() {
		t.Errorf("on one processor the shard is %d, and there are %d for %d processors of %d", i, NumProcs, procs, runtime.NumCPU())
	}
}

// TestAfterPins: the function is not called before those who are pinned have unpinned.
func TestAfterPins(t *testing.T) {
	procs := runtime.GOMAXPROCS(4)
	defer runtime.GOMAXPROCS(procs)
	for range 5 {
		var ready, entered, unpinned atomic.Bool
		collected := make(chan struct{})
		called := make(chan bool, 1)
		go func() {
			defer close(collected)
			ready.Store(true)
			for !entered.Load() {
			}
			runtime.GC()
		}()
		for !ready.Load() {
			runtime.Gosched()
		}
		p := Pin()
		AfterPins(func() { called <- unpinned.Load() })
		entered.Store(true)
		for start := time.Now(); time.Since(start) < 20*time.Millisecond && len(called) == 0; {
		}
		unpinned.Store(true)
		p.Unpin()
		<-collected
		if !<-called {
			t.Fatal("it was called while somebody was pinned")
		}
	}
}
