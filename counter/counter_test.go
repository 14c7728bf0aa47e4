package counter

import (
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"
	"unsafe"
)

func TestCounterAtRest(t *testing.T) {
	var c Counter
	c.Allocate(4096, 4096)
	c.Allocate(5000, 8192)
	c.Allocate(3, 3)
	c.Reallocate(4096, 4096, 10000, 12288)
	c.Free(5000, 8192)
	c.Reallocate(3, 3, 0, 0)
	c.FailAllocate()
	c.FailAllocate()
	c.FailReallocate()
	c.FailFree()
	want := Stats{
		Allocations: 3, Reallocations: 2, Frees: 1,
		FailedAllocations: 2, FailedReallocations: 1, FailedFrees: 1,
		RequestedBytes: 4096 + 5000 + 3 + 10000,
		AllocatedBytes: 4096 + 8192 + 3 + 12288,
		FreedBytes:     4096 + 8192 + 3,
		LiveBytes:      12288, LiveBlocks: 1,
		LiveRequestedBytes: 10000,
		PeakBytes:          12288 + 8192 + 3,
	}
	want.Classes[2] = Class{1, 1}
	want.Classes[12] = Class{1, 1}
	want.Classes[13] = Class{1, 1}
	want.Classes[14] = Class{1, 0}
	if got := c.Stats(); got != want {
		t.Errorf("Stats = %+v\nwant    %+v", got, want)
	}
	if got := c.Stats().Failures(); got != 4 {
		t.Errorf("Failures = %d, want 4", got)
	}
}

// TestCounterSizes counts blocks at the edges of every class.
func TestCounterSizes(t *testing.T) {
	var c Counter
	var bytes, blocks int64
	for i := range 48 {
		for _, size := range []uintptr{1<<(i%31) - 1, 1 << (i % 31), 1<<(i%31) + 1} {
			if size == 0 {
				continue
			}
			c.Allocate(size, size)
			bytes += int64(size)
			blocks++
			s := c.Stats()
			if s.LiveBytes != bytes || s.LiveBlocks != blocks || s.RequestedBytes != bytes || s.LiveRequestedBytes != bytes {
				t.Fatalf("after a block of %d: %v, want %d bytes in %d blocks", size, s, bytes, blocks)
			}
		}
	}
	var inClasses int64
	for _, class := range c.Stats().Classes {
		inClasses += class.Live()
	}
	if inClasses != blocks {
		t.Errorf("the classes hold %d blocks, want %d", inClasses, blocks)
	}
}

// TestEmptyBlocks: a block of size zero is no block.
func TestEmptyBlocks(t *testing.T) {
	var c Counter
	c.Allocate(0, 0)
	c.Reallocate(0, 0, 0, 0)
	c.Free(0, 0)
	if got := c.Stats(); got != (Stats{}) {
		t.Errorf("Stats = %+v, want all zero", got)
	}
}

// TestChildren checks that a tree adds up, also where a block is freed through
// another node than the one that allocated it.
func TestChildren(t *testing.T) {
	var root Counter
	a, b := root.Child(), root.Child()
	leaf := a.Child()
	root.Allocate(1<<10, 1<<10)
	a.Allocate(1<<11, 1<<11)
	b.Allocate(1<<12, 1<<12)
	leaf.Allocate(1<<13, 1<<13)
	if got := root.Stats().LiveBytes; got != 15<<10 {
		t.Errorf("root: %d live bytes, want %d", got, 15<<10)
	}
	if got := a.Stats().LiveBytes; got != 10<<10 {
		t.Errorf("a: %d live bytes, want %d", got, 10<<10)
	}
	leaf.Free(1<<13, 1<<13)
	s := root.Stats()
	if s.PeakBytes != 15<<10 || s.PeakBound != 0 {
		t.Errorf("peak %d ± %d; want %d, which a snapshot has shown", s.PeakBytes, s.PeakBound, 15<<10)
	}
	least := func() int64 { // what is known without that snapshot
		b := root.bounds()
		return b.highest - b.below
	}
	if least() != 8<<10 {
		t.Errorf("peak at least %d; want %d", least(), 8<<10)
	}
	b.Free(1<<11, 1<<11) // a's block
	b.Free(1<<12, 1<<12)
	root.Free(1<<10, 1<<10)
	s = root.Stats()
	if s.LiveBytes != 0 || s.LiveBlocks != 0 || s.FreedBytes != 15<<10 {
		t.Errorf("at the end: %v", s)
	}
	if least() != 6<<10 { // b was 2 KiB below nothing
		t.Errorf("with a foreign free the peak is at least %d, want %d", least(), 6<<10)
	}
	if got := b.Stats(); got.LiveBytes != 0 || got.LiveBlocks != 0 || got.AllocatedBytes-got.FreedBytes != -2<<10 {
		t.Errorf("b freed a block of a: %v; want 0 live and a net of -2 KiB", got)
	}
}

// TestForeignReallocate: where a child shrinks a block of another, their peaks say
// less of the peak of both, and the bound says so.
func TestForeignReallocate(t *testing.T) {
	var root Counter
	a, b := root.Child(), root.Child()
	a.Allocate(8192, 8192)
	b.Reallocate(8192, 8192, 4096, 4096)
	if s := root.Stats(); s.LiveBytes != 4096 || s.PeakBytes != 8192 || s.PeakBound != 4096 {
		t.Errorf("%+v; want 4096 bytes live and a peak of 8192, at least 4096", s)
	}
}

// TestCounterStorm runs 8 goroutines that count random operations, of which each
// holds at most holdMax bytes, while snapshots are taken: each must lie between
// zero and what can be live, totals must never step back, and the end is exact.
func TestCounterStorm(t *testing.T) {
	const workers, holdMax = 8, 11 * (1<<15 + 100)
	steps := 200_000
	if testing.Short() {
		steps = 20_000
	}
	var root Counter
	nodes := []*Counter{&root, root.Child(), root.Child()}
	var storm, watch sync.WaitGroup
	stop := make(chan struct{})
	var want [workers]Stats
	for w := range workers {
		storm.Go(func() {
			rnd := rand.New(rand.NewPCG(7, uint64(w)))
			c := nodes[w%len(nodes)]
			m := &want[w]
			var held []uintptr
			for range steps {
				size := uintptr(1) << rnd.IntN(16)
				if rnd.IntN(4) == 0 {
					size += uintptr(rnd.IntN(100))
				}
				switch last := len(held) - 1; {
				case rnd.IntN(50) == 0:
					c.FailAllocate()
					m.FailedAllocations++
				case last >= 0 && rnd.IntN(10) == 0:
					c.Reallocate(held[last], held[last], size, size)
					m.Reallocations++
					m.AllocatedBytes += int64(size)
					m.FreedBytes += int64(held[last])
					held[last] = size
				case last >= 0 && (rnd.IntN(2) == 0 || last > 8):
					c.Free(held[last], held[last])
					m.Frees++
					m.FreedBytes += int64(held[last])
					held = held[:last]
				default:
					c.Allocate(size, size)
					m.Allocations++
					m.AllocatedBytes += int64(size)
					held = append(held, size)
				}
			}
			for _, size := range held {
				m.LiveBytes += int64(size)
				m.LiveBlocks++
			}
		})
	}
	watch.Go(func() {
		var last Stats
		for snapshots := 0; ; snapshots++ {
			s := root.Stats()
			if s.LiveBytes < 0 || s.LiveBlocks < 0 || s.LiveBytes > workers*holdMax || s.LiveBlocks > workers*11 {
				t.Errorf("snapshot %d: %v", snapshots, s)
				return
			}
			if s.LiveBytes > s.PeakBytes {
				t.Errorf("snapshot %d: live %d is above the peak %d", snapshots, s.LiveBytes, s.PeakBytes)
				return
			}
			d := s.Sub(last)
			if d.Allocations < 0 || d.Reallocations < 0 || d.Frees < 0 || d.AllocatedBytes < 0 || d.FreedBytes < 0 || d.FailedAllocations < 0 {
				t.Errorf("snapshot %d: totals stepped back: %+v", snapshots, d)
				return
			}
			last = s
			select {
			case <-stop:
				if snapshots == 0 {
					t.Error("no snapshot was taken during the storm")
				}
				return
			default:
			}
			runtime.Gosched() // platforms with one thread do not preempt
		}
	})
	storm.Wait()
	close(stop)
	watch.Wait()
	got := root.Stats()
	var sum Stats
	for _, m := range want {
		sum.Allocations += m.Allocations
		sum.Reallocations += m.Reallocations
		sum.Frees += m.Frees
		sum.FailedAllocations += m.FailedAllocations
		sum.AllocatedBytes += m.AllocatedBytes
		sum.FreedBytes += m.FreedBytes
		sum.LiveBytes += m.LiveBytes
		sum.LiveBlocks += m.LiveBlocks
	}
	sum.RequestedBytes, sum.LiveRequestedBytes = sum.AllocatedBytes, sum.LiveBytes
	sum.PeakBytes, sum.PeakBound, sum.Classes = got.PeakBytes, got.PeakBound, got.Classes
	if got != sum {
		t.Errorf("at rest: %+v\nwant     %+v", got, sum)
	}
}

// TestDocumentedSize holds the doc comment of Counter to its word.
func TestDocumentedSize(t *testing.T) {
	if offset := unsafe.Offsetof(Counter{}.early); unsafe.Sizeof(uintptr(0)) == 8 && offset != 32 {
		t.Errorf("the early counts begin at %d; a snapshot of many Counters reads them in one cache line with what is before", offset)
	}
	if offset := unsafe.Offsetof(Counter{}.peakTracker); unsafe.Sizeof(uintptr(0)) == 8 && offset%64 != 0 {
		t.Errorf("what is written after the early blocks begins at %d, not with a cache line", offset)
	}
	if offset := unsafe.Offsetof(Counter{}.earlySums); unsafe.Sizeof(uintptr(0)) == 8 && offset != 320 {
		t.Errorf("the early sums begin at %d, not with the last cache line", offset)
	}
	if size := unsafe.Sizeof(Counter{}); size > 384 {
		t.Errorf("a Counter has %d bytes; its comment says 384", size)
	}
	if size := unsafe.Sizeof(shardCounts{}); size > 4864 {
		t.Errorf("a shard's counts have %d bytes; the comment of Counter says 4.75 KiB", size)
	}
}
