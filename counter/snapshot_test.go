package counter

import (
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// underWay has workers goroutines operate again and again while watch is called,
// until it returns false or enough time has passed.
func underWay(workers int, operate func(), watch func() bool) {
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for i := 0; !stop.Load(); i++ {
				operate()
				if i%1024 == 0 {
					runtime.Gosched() // platforms with one thread do not preempt
				}
			}
		})
	}
	for end := time.Now().Add(150 * time.Millisecond); time.Now().Before(end) && watch(); {
	}
	stop.Store(true)
	wg.Wait()
}

// TestSnapshotUnderWay holds snapshots that are taken during operations against
// what can be true at any moment.
func TestSnapshotUnderWay(t *testing.T) {
	for name, c := range map[string]struct {
		workers, blocks, bytes int64 // blocks and bytes are what can be live at most
		operate                func(a, b *Counter)
	}{
		"powers": {2, 2, 8192, func(a, _ *Counter) {
			a.Allocate(4096, 4096)
			a.Free(4096)
		}},
		"others": {2, 2, 10000, func(a, _ *Counter) {
			a.Allocate(5000, 5000)
			a.Free(5000)
		}},
		"reallocated": {1, 1, 8192, func(a, _ *Counter) { // its old block is released first
			a.Allocate(4096, 4096)
			a.Reallocate(4096, 8192, 8192)
			a.Reallocate(8192, 4096, 4096)
			a.Free(4096)
		}},
		"slack": {2, 2, 8192, func(a, _ *Counter) {
			a.Allocate(4000, 4096)
			a.Free(4096)
		}},
		"two nodes": {1, 1, 4096, func(a, b *Counter) {
			b.Allocate(4096, 4096)
			a.Free(4096)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			var root Counter
			a, b := root.Child(), root.Child()
			var last Stats
			underWay(int(c.workers), func() { c.operate(a, b) }, func() bool {
				s := root.Stats()
				switch {
				case s.LiveBlocks > c.blocks || s.LiveBytes > c.bytes:
					t.Errorf("more than %d bytes in %d blocks: %+v", c.bytes, c.blocks, s)
				case s.LiveBytes < 0 || s.LiveBlocks < 0:
					t.Errorf("less than nothing is live: %+v", s)
				case s.LiveBytes > s.PeakBytes:
					t.Errorf("more is live than the peak: %+v", s)
				case s.PeakBytes < last.PeakBytes:
					t.Errorf("the peak falls from %d: %+v", last.PeakBytes, s)
				case s.RequestedBytes > s.AllocatedBytes:
					t.Errorf("more was requested than granted: %+v", s)
				case name == "slack" && s.RequestedBytes < 4000*s.Allocations:
					t.Errorf("less was requested than 4000 bytes a block: %+v", s)
				}
				last = s
				return !t.Failed()
			})
		})
	}
}

// TestPeakUnderWay: the peak is never behind the blocks that are counted, and
// never falls, where several goroutines raise it at once.
func TestPeakUnderWay(t *testing.T) {
	const workers, blocks = 4, 50_000
	var c Counter
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			var last int64
			for range blocks {
				c.Allocate(4096, 4096)
				counted := c.allocated.powers[12].Load() << 12
				peak := c.peak.Load()
				if peak < counted || peak < last {
					t.Errorf("the peak is %d with %d bytes counted; it was %d", peak, counted, last)
					return
				}
				last = peak
			}
		})
	}
	wg.Wait()
	if s := c.Stats(); s.PeakBytes != workers*blocks*4096 {
		t.Errorf("at rest: %v, want a peak of %d bytes", s, workers*blocks*4096)
	}
}

// TestLiveUnderWay: what the peak is made from is never behind the blocks that are
// counted, where they are freed at the same time.
func TestLiveUnderWay(t *testing.T) {
	var c Counter
	operate := func() {
		c.Allocate(4096, 4096)
		c.Free(4096)
	}
	underWay(2, operate, func() bool {
		allocated := c.allocated.powers[12].Load()
		live := c.live.Load() >> 12
		freed := c.freed.powers[12].Load()
		if live < allocated-freed {
			t.Errorf("%d live blocks, with %d allocated and %d freed", live, allocated, freed)
		}
		return !t.Failed()
	})
}

// TestFlowUnderWay: bytes that are seen belong to blocks that are seen.
func TestFlowUnderWay(t *testing.T) {
	var f flow
	underWay(1, func() { f.add(3) }, func() bool {
		var seen total
		seen.add(&f)
		if seen.bytes > 3*seen.blocks {
			t.Errorf("%d blocks of 3 bytes have %d bytes", seen.blocks, seen.bytes)
		}
		return !t.Failed()
	})
}

// TestAcceptedSnapshot: a snapshot during which nothing was released shows a block
// that is live throughout, while others come and go, and Stats finds such a moment.
func TestAcceptedSnapshot(t *testing.T) {
	var c Counter
	c.Allocate(5000, 5000)
	nodes := []*Counter{&c}
	operate := func() {
		c.Allocate(5000, 5000)
		c.Reallocate(5000, 9000, 9000)
		c.Free(9000)
		for range 16 { // a pause that leaves room for several snapshots
			released(nodes)
		}
	}
	var snapshots, below int
	underWay(2, operate, func() bool {
		before := released(nodes)
		if s, after := snapshot(nodes); after == before && (s.LiveBytes < 5000 || s.LiveBlocks < 1) {
			t.Errorf("an accepted snapshot misses the live block: %+v", s)
		}
		if s := c.Stats(); s.LiveBytes < 5000 {
			below++
		}
		snapshots++
		return !t.Failed()
	})
	if below > 1+snapshots/100 {
		t.Errorf("%d of %d snapshots miss the live block", below, snapshots)
	}
	before := released(nodes)
	if _, after := snapshot(nodes); after != before {
		t.Errorf("at rest %d blocks were released before a snapshot and %d after", before, after)
	}
}
