package alloctrace_test

import (
	"math/rand/v2"
	"runtime/debug"
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
)

// TestStress runs 8 goroutines of mixed operations through a Proxy while
// snapshots are taken, and holds the counters against a model: each snapshot
// must lie between zero and what can be live, and the end is exact. CI runs a
// million operations in each goroutine, a hundred thousand where each is a system
// call; elsewhere it is less.
func TestStress(t *testing.T) {
	steps := 20_000
	switch {
	case requireAll && !raceEnabled:
		steps = 1_000_000
	case testing.Short():
		steps = 5_000
	}
	// With next to nothing live, Heap would have the collector run after every 4 MiB.
	defer debug.SetGCPercent(debug.SetGCPercent(2000))
	for name, inner := range map[string]blockalloc.Allocator{"System": &blockalloc.System{}, "Pool": &blockalloc.Pool{}, "Heap": &blockalloc.Heap{}} {
		steps := steps
		if name == "System" {
			steps = min(steps, 100_000)
		}
		t.Run(name, func(t *testing.T) { stress(t, alloctrace.Wrap(inner), steps) })
		t.Run(name+"/exact", func(t *testing.T) {
			stress(t, alloctrace.Wrap(inner, alloctrace.WithCounter(counter.Exact())), steps)
		})
	}
}

// Each worker holds at most hold blocks of at most largest bytes, granted.
const (
	stressWorkers = 8
	stressHold    = 8
	stressLargest = 16 << 10
)

func stress(t *testing.T, p *alloctrace.Proxy, steps int) {
	// One block more for each worker: a reallocation can have two at a time.
	const most = stressWorkers * (stressHold + 1)
	var storm, watch sync.WaitGroup
	stop := make(chan struct{})
	var want [stressWorkers]counter.Stats
	for w := range stressWorkers {
		storm.Go(func() { want[w] = mixedOperations(t, p, rand.New(rand.NewPCG(11, uint64(w))), steps) })
	}
	watch.Go(func() {
		var last counter.Stats
		for snapshots := 1; ; snapshots++ {
			s := p.Stats()
			d := s.Sub(last)
			switch {
			case s.LiveBytes < 0 || s.LiveBytes > most*stressLargest || s.LiveBlocks < 0 || s.LiveBlocks > most:
				t.Errorf("snapshot %d: %v; at most %d bytes in %d blocks can be live", snapshots, s, most*stressLargest, most)
				return
			case s.PeakBytes-s.PeakBound > most*stressLargest || s.LiveBytes > s.PeakBytes:
				t.Errorf("snapshot %d: %v; the peak must be between live and %d bytes", snapshots, s, most*stressLargest)
				return
			case d.Allocations < 0 || d.Frees < 0 || d.AllocatedBytes < 0 || d.FreedBytes < 0:
				t.Errorf("snapshot %d: totals stepped back by %v", snapshots, d)
				return
			}
			last = s
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	storm.Wait()
	close(stop)
	watch.Wait()

	var sum counter.Stats
	for _, m := range want {
		sum.Allocations += m.Allocations
		sum.Reallocations += m.Reallocations
		sum.Frees += m.Frees
		sum.FailedAllocations += m.FailedAllocations
		sum.FailedReallocations += m.FailedReallocations
		sum.FailedFrees += m.FailedFrees
		sum.RequestedBytes += m.RequestedBytes
		sum.AllocatedBytes += m.AllocatedBytes
		sum.FreedBytes += m.FreedBytes
	}
	got := p.Stats()
	sum.PeakBytes, sum.PeakBound, sum.Classes = got.PeakBytes, got.PeakBound, got.Classes
	if got != sum {
		t.Errorf("at rest: %+v\nwant     %+v", got, sum)
	}
	for i, c := range got.Classes {
		if c.Live() != 0 {
			t.Errorf("at rest: %d blocks of class %d live", c.Live(), i)
		}
	}
}

// mixedOperations runs steps operations and frees what is left. It returns what
// they must have counted.
func mixedOperations(t *testing.T, p *alloctrace.Proxy, rnd *rand.Rand, steps int) (m counter.Stats) {
	var held []blockalloc.Block
	size := func() uintptr { return uintptr(1 + rnd.IntN(stressLargest)) }
	free := func(b blockalloc.Block) {
		if err := p.Free(b); err != nil {
			t.Error(err)
		}
		m.Frees++
		m.FreedBytes += int64(b.Size())
	}
	for range steps {
		last := len(held) - 1
		switch n := rnd.IntN(100); {
		case n < 2:
			if _, err := p.Allocate(blockalloc.BlockLayout(999)); err == nil {
				t.Error("a bad layout was allocated")
			}
			m.FailedAllocations++
		case n < 4 && last >= 0:
			if _, err := p.Reallocate(held[last], ^uintptr(0)); err == nil {
				t.Error("a bad size was reallocated to")
			}
			m.FailedReallocations++
		case n < 6 && last >= 0:
			wrong, _ := blockalloc.FromRaw(held[last].Pointer(), blockalloc.Layout{Size: held[last].Size() + 1, Align: 1})
			if err := p.Free(wrong); err == nil {
				t.Error("a block of the wrong size was freed")
			}
			m.FailedFrees++
		case n < 15 && last >= 0:
			requested := size()
			b, err := p.Reallocate(held[last], requested)
			if err != nil {
				t.Error(err)
				continue
			}
			m.Reallocations++
			m.RequestedBytes += int64(requested)
			m.AllocatedBytes += int64(b.Size())
			m.FreedBytes += int64(held[last].Size())
			held[last] = b
		case last >= 0 && (n < 55 || last == stressHold-1):
			free(held[last])
			held = held[:last]
		default:
			l := blockalloc.Layout{Size: size(), Align: 1 << rnd.IntN(13)}
			b, err := p.Allocate(l)
			if err != nil {
				t.Error(err)
				continue
			}
			m.Allocations++
			m.RequestedBytes += int64(l.Size)
			m.AllocatedBytes += int64(b.Size())
			held = append(held, b)
		}
	}
	for _, b := range held {
		free(b)
	}
	return m
}
