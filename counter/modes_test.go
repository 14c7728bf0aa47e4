package counter

import (
	"flag"
	"iter"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alloctrace/alloctrace/internal/callers"
)

// countRounds counts n blocks that are allocated, reallocated and freed.
func countRounds(c *Counter, n int) {
	for range n {
		c.Allocate(4096, 4096)
		c.Reallocate(4096, 4096, 100, 128)
		c.Free(100, 128)
	}
}

func checkRounds(t *testing.T, c *Counter, n int64) {
	t.Helper()
	s := c.Stats()
	want := Stats{
		Allocations: n, Reallocations: n, Frees: n,
		RequestedBytes: n * 4196, AllocatedBytes: n * 4224, FreedBytes: n * 4224,
	}
	want.PeakBytes, want.PeakBound, want.Classes = s.PeakBytes, s.PeakBound, s.Classes
	if s != want {
		t.Errorf("%+v, want %+v", s, want)
	}
}

// TestCountInCoroutines: coroutines of iter.Pull, which go from one goroutine to another, count
// as goroutines do.
func TestCountInCoroutines(t *testing.T) {
	manyProcs(t, 4)
	var c Counter
	const coroutines, turns, each = 8, 50, 20
	var wg sync.WaitGroup
	pulled := make(chan func() (int, bool), coroutines)
	for range coroutines {
		next, stop := iter.Pull(iter.Seq[int](func(yield func(int) bool) {
			for i := range turns {
				countRounds(&c, each)
				if !yield(i) {
					return
				}
			}
		}))
		defer stop()
		pulled <- next
	}
	for range 4 {
		wg.Go(func() {
			for range coroutines * turns / 4 {
				next := <-pulled
				next()
				pulled <- next
			}
		})
	}
	wg.Wait()
	for range coroutines { // some may have had more turns than others
		next := <-pulled
		for _, more := next(); more; _, more = next() {
		}
	}
	checkRounds(t, &c, coroutines*turns*each)
}

// TestCountInBubbles: goroutines in a bubble of testing/synctest count as others do, in a Counter
// of the bubble and in one from outside.
func TestCountInBubbles(t *testing.T) {
	var outer Counter
	synctest.Test(t, func(t *testing.T) {
		var inner Counter
		for range 4 {
			go func() {
				for range 10 {
					countRounds(&inner, 50)
					countRounds(&outer, 50)
					time.Sleep(time.Hour)
				}
			}()
		}
		time.Sleep(11 * time.Hour)
		synctest.Wait()
		checkRounds(t, &inner, 4*10*50)
	})
	checkRounds(t, &outer, 4*10*50)
}

// TestCountWhileProfiled: signals of the CPU profile, 1000 a second, come while goroutines count
// and walk their stacks.
func TestCountWhileProfiled(t *testing.T) {
	if f := flag.Lookup("test.cpuprofile"); f != nil && f.Value.String() != "" {
		t.Log("-cpuprofile is on: this test runs under its signals instead of its own")
	} else {
		runtime.SetCPUProfileRate(1000)
		defer runtime.SetCPUProfileRate(0)
	}
	var c Counter
	const goroutines, turns, each = 4, 2_000, 20
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for range turns {
				countRounds(&c, each)
				var pcs, want [32]uintptr
				got := callers.Frames(pcs[:callers.Stack(pcs[:])])
				called := callers.Frames(want[:runtime.Callers(1, want[:])])
				if !slices.EqualFunc(got, called, func(a, b runtime.Frame) bool { return a.Function == b.Function }) {
					t.Errorf("Stack finds %v, and Callers %v", got, called)
					return
				}
			}
		})
	}
	wg.Wait()
	checkRounds(t, &c, goroutines*turns*each)
}
