package counter

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace/internal/shard"
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
			a.Free(4096, 4096)
		}},
		"others": {2, 2, 10000, func(a, _ *Counter) {
			a.Allocate(5000, 5000)
			a.Free(5000, 5000)
		}},
		"reallocated": {1, 1, 8192, func(a, _ *Counter) { // its old block is released first
			a.Allocate(4096, 4096)
			a.Reallocate(4096, 4096, 8192, 8192)
			a.Reallocate(8192, 8192, 4096, 4096)
			a.Free(4096, 4096)
		}},
		"slack": {2, 2, 8192, func(a, _ *Counter) {
			a.Allocate(4000, 4096)
			a.Free(4000, 4096)
		}},
		"slack of odd sizes": {2, 2, 10000, func(a, _ *Counter) {
			a.Allocate(4000, 5000)
			a.Free(4000, 5000)
		}},
		"slack of large blocks": {2, 2, 4 << 20, func(a, _ *Counter) {
			a.Allocate(1, 2<<20)
			a.Free(1, 2<<20)
		}},
		"slack of reallocations": {1, 1, 8192, func(a, _ *Counter) {
			a.Allocate(4000, 4096)
			a.Reallocate(4000, 4096, 5000, 8192)
			a.Reallocate(5000, 8192, 4000, 5000)
			a.Free(4000, 5000)
		}},
		"two nodes": {1, 1, 4096, func(a, b *Counter) {
			b.Allocate(4096, 4096)
			a.Free(4096, 4096)
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
				case s.RequestedBytes < last.RequestedBytes:
					t.Errorf("the requested bytes step back from %d: %+v", last.RequestedBytes, s)
				case s.LiveRequestedBytes < 0 || s.LiveRequestedBytes > s.LiveBytes:
					t.Errorf("%d bytes live of those requested: %+v", s.LiveRequestedBytes, s)
				case s.RequestedBytes > s.AllocatedBytes:
					t.Errorf("more was requested than granted: %+v", s)
				case name == "slack" && s.RequestedBytes < 4000*s.Allocations:
					t.Errorf("less was requested than 4000 bytes a block: %+v", s)
				}
				last = s
				return !t.Failed()
			})
			if s := root.Stats(); s.LiveRequestedBytes != 0 || s.LiveBytes != 0 {
				t.Errorf("in the end %d bytes live of those requested: %+v", s.LiveRequestedBytes, s)
			}
		})
	}
}

// TestPeakOfManyStays: what a snapshot of several Counters has shown as live stays below the
// peak, though it was not published.
func TestPeakOfManyStays(t *testing.T) {
	var root Counter
	a := root.Child()
	for range 4 * busy {
		a.Allocate(5000, 5000)
		a.Free(5000, 5000)
	}
	for _, blocks := range []int64{2, 5, 3} {
		before := root.Stats()
		for range blocks {
			a.Allocate(5000, 5000)
		}
		live := root.Stats()
		for range blocks {
			a.Free(5000, 5000)
		}
		if s := root.Stats(); live.LiveBytes != 5000*blocks || s.PeakBytes < max(before.PeakBytes, 5000*blocks) || s.LiveBytes != 0 {
			t.Errorf("with %d blocks %v, and then %v", blocks, live, s)
		}
	}
}

// TestPeakUnderWay: an exact peak is never behind the blocks that were counted, and
// never falls, where several goroutines raise it at once.
func TestPeakUnderWay(t *testing.T) {
	const workers, blocks = 4, 50_000
	c := Exact()
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			var last int64
			for mine := range int64(blocks) {
				c.Allocate(4096, 4096)
				peak := c.peak.Load()
				if peak <= mine*4096 || peak < last {
					t.Errorf("the peak is %d after %d blocks of this goroutine; it was %d", peak, mine+1, last)
					return
				}
				last = peak
			}
		})
	}
	wg.Wait()
	if s := c.Stats(); s.PeakBytes != workers*blocks*4096 || s.PeakBound != 0 {
		t.Errorf("at rest: %v, want a peak of %d bytes", s, workers*blocks*4096)
	}
}

// TestRequestedBetweenPasses: a reader that is interrupted in the middle of a snapshot, while
// blocks with slack come, shows no more requested bytes than were requested, and no fewer than
// were before, so that the next snapshot does not step back.
func TestRequestedBetweenPasses(t *testing.T) {
	var c Counter
	var requested int64
	allocate := func() {
		for _, size := range []struct{ requested, granted uintptr }{
			{100, 128}, {4096, 4096}, {1000, 1500}, {1500, 1500}, {1, unit}, {1, 2 * unit}, {1, unit + 1},
		} {
			c.Allocate(size.requested, size.granted)
			c.Reallocate(size.requested, size.granted, size.requested, size.granted)
			requested += 2 * int64(size.requested)
		}
	}
	for range 3 * busy {
		allocate()
		before := requested
		var s snapshot
		s.acquire(&c)
		for range 5 {
			allocate()
		}
		if s := s.stats(&c, s.release(&c)); s.RequestedBytes < before || s.RequestedBytes > requested || s.RequestedBytes > s.AllocatedBytes {
			t.Fatalf("%d bytes requested, of %d granted; want %d to %d", s.RequestedBytes, s.AllocatedBytes, before, requested)
		}
		if s := c.Stats(); s.RequestedBytes != requested {
			t.Fatalf("at rest %d bytes requested, want %d", s.RequestedBytes, requested)
		}
	}
}

// TestSlackIsCountedOnce: blocks with slack are in every figure, as those without are.
func TestSlackIsCountedOnce(t *testing.T) {
	for _, size := range []uintptr{2, 128, 5000, unit / 2, unit, unit + 1, 2 * unit, 1 << 30} {
		c, same := Exact(), Exact()
		const blocks = 3 * busy
		for range blocks {
			c.Allocate(size-1, size)
			same.Allocate(size, size)
		}
		for range busy {
			c.Free(size-1, size)
			same.Free(size, size)
		}
		want := same.Stats()
		want.RequestedBytes -= blocks
		want.LiveRequestedBytes -= blocks - busy
		if got := c.Stats(); got != want {
			t.Errorf("size %d: %+v, want %+v", size, got, want)
		}
		var plain Counter
		for range blocks {
			plain.Allocate(size-1, size)
		}
		if s := plain.Stats(); abs(s.PeakBytes-s.LiveBytes) > s.PeakBound || size >= unit && size&(size-1) == 0 && s.PeakBound != 0 {
			t.Errorf("size %d: %v", size, s)
		}
	}
}

// TestFlowUnderWay: bytes that are seen belong to blocks that are seen.
func TestFlowUnderWay(t *testing.T) {
	var c Counter
	underWay(1, func() { c.Allocate(3, 3) }, func() bool {
		var seen total
		c.each(func(s *shardCounts) { seen.add(s, allocated) })
		if seen.bytes() > 3*seen.blocks() {
			t.Errorf("%d blocks of 3 bytes have %d bytes", seen.blocks(), seen.bytes())
		}
		return !t.Failed()
	})
}

// TestEarlyUnderWay is TestFlowUnderWay for early blocks.
func TestEarlyUnderWay(t *testing.T) {
	var c Counter
	operate := func() {
		if c.early.counts[0].Load()>>kindBits < 1<<20 {
			c.countEarly(allocated, 3, 3)
		}
	}
	underWay(1, operate, func() bool {
		var seen [ops]total
		addEarly(&seen, &c, allocated)
		if sum := seen[allocated]; sum.bytes() > 3*sum.blocks() {
			t.Errorf("%d blocks of 3 bytes have %d bytes", sum.blocks(), sum.bytes())
		}
		return !t.Failed()
	})
}

// TestAcceptedSnapshot: a snapshot during which nothing was released shows a block
// that is live throughout, while others come and go, and Stats finds such a moment.
func TestAcceptedSnapshot(t *testing.T) {
	var c Counter
	c.Allocate(5000, 5000)
	operate := func() {
		c.Allocate(5000, 5000)
		c.Reallocate(5000, 5000, 9000, 9000)
		c.Free(9000, 9000)
		for range 16 { // a pause that leaves room for several snapshots
			c.released()
		}
	}
	var snapshots, below int
	underWay(2, operate, func() bool {
		before, grown := c.released(), c.grown.Load()
		s, after := c.pass()
		if c.grown.Load() == grown && after == before && (s.LiveBytes < 5000 || s.LiveBlocks < 1) {
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
	before := c.released()
	if _, after := c.pass(); after != before {
		t.Errorf("at rest %d blocks were released before a snapshot and %d after", before, after)
	}
}

// pass takes a snapshot that may not be accepted, and returns how many releases it has seen.
func (c *Counter) pass() (Stats, int64) {
	var s snapshot
	s.acquire(c)
	b := s.release(c)
	return s.stats(c, b), s.ops[reallocatedFrom].blocks() + s.ops[freed].blocks()
}

// TestPeakWhileGrowing: a snapshot during which a shard gets its counts, in which blocks are
// released, shows no more as live, or as the peak, than was live.
func TestPeakWhileGrowing(t *testing.T) {
	for name, c := range map[string]*Counter{"default": new(Counter), "exact": Exact(), "child": nil} {
		root := c
		if c == nil {
			root = new(Counter)
			c = root.Child()
		}
		var s snapshot
		s.acquire(root)
		list := make([]atomic.Pointer[shardCounts], shard.NumProcs)
		list[0].Store(&shardCounts{owned: true})
		c.setShards(list)
		for range busy {
			p := shard.Pin()
			c.countEarly(allocated, 4096, 4096)
			c.countIn(p, list[0].Load(), freed, 4096, 4096)
			p.Unpin()
		}
		if s := s.stats(root, s.release(root)); s.LiveBytes > 4096 || s.PeakBytes > 4096 {
			t.Errorf("%s: before the snapshot is read again: %v, want 4096 bytes live at most", name, s)
		}
		if s := root.Stats(); s.PeakBytes != 4096 || s.PeakBound > 4096 {
			t.Errorf("%s: %v, want a peak of 4096 bytes", name, s)
		}
	}
}

// TestPeakOfFreshCounters: where some allocate, others free, and others take snapshots, neither
// peak nor live are ever more than what can be live, also while shards get their counts.
func TestPeakOfFreshCounters(t *testing.T) {
	counters := 200
	if os.Getenv("ALLOCTRACE_REQUIRE_ALL") != "" {
		counters = 4_000
	}
	manyProcs(t, 4)
	const each, queued, size = 400, 16, 4096
	const most = (queued + 4) * size // two have counted and not sent, two received and not counted
	for n := range counters {
		c := new(Counter)
		if n%2 == 0 {
			c = Exact()
		}
		blocks := make(chan uintptr, queued)
		var working, watching sync.WaitGroup
		var stop atomic.Bool
		for range 2 {
			working.Go(func() {
				for range each {
					c.Allocate(size, size)
					blocks <- size
				}
			})
			working.Go(func() {
				for range each {
					granted := <-blocks
					c.Free(granted, granted)
				}
			})
			watching.Go(func() {
				for !stop.Load() {
					if s := c.Stats(); s.LiveBytes > most || s.PeakBytes > most {
						t.Errorf("Counter %d: %v; at most %d bytes were live", n, s, most)
						return
					}
					runtime.Gosched()
				}
			})
		}
		working.Wait()
		stop.Store(true)
		watching.Wait()
		if s := c.Stats(); s.PeakBytes > most || s.LiveBytes != 0 {
			t.Errorf("Counter %d at rest: %v; at most %d bytes were live", n, s, most)
		}
		if t.Failed() {
			return
		}
	}
}
