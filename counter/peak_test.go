package counter

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/alloctrace/alloctrace/internal/shard"
	"github.com/alloctrace/alloctrace/internal/shard/shardtest"
)

// TestPeakBound has several goroutines count the same blocks in a Counter and in a
// model, one operation at a time: the peak is the model's, give or take the bound, all
// the way, and what the peakTracker has is live, give or take as much.
func TestPeakBound(t *testing.T) {
	steps := 40_000
	if testing.Short() {
		steps = 10_000
	}
	for name, size := range map[string]func(*rand.Rand) uintptr{
		"64 B":  func(*rand.Rand) uintptr { return 64 },
		"4 KiB": func(*rand.Rand) uintptr { return 4096 },
		"large": func(r *rand.Rand) uintptr { return unit<<r.IntN(5) + uintptr(r.IntN(2)*100) },
		"odd":   func(r *rand.Rand) uintptr { return 1 + uintptr(r.UintN(9000)) },
		"mixed": func(r *rand.Rand) uintptr { return 1<<r.IntN(20) + uintptr(r.UintN(2)*r.UintN(7)) },
		"slack": func(r *rand.Rand) uintptr { return 1<<r.IntN(22) + uintptr(r.UintN(2)*r.UintN(7)) },
	} {
		for _, exact := range []bool{false, true} {
			t.Run(name+map[bool]string{true: "/exact", false: ""}[exact], func(t *testing.T) {
				c := new(Counter)
				if exact {
					c = Exact()
				}
				var mu sync.Mutex
				var live, peak int64
				var wg sync.WaitGroup
				for w := range 4 {
					wg.Go(func() {
						rnd := rand.New(rand.NewPCG(uint64(w), 5))
						var held []uintptr
						for step := range steps / 4 {
							grow := rnd.IntN(100) < 30+40*(step/500%2) // the level rises and falls
							mu.Lock()
							switch last := len(held) - 1; {
							case grow || last < 0:
								n := size(rnd)
								requested := n
								if name == "slack" {
									requested -= uintptr(rnd.UintN(2)) * n / 4
								}
								c.Allocate(requested, n)
								held = append(held, n)
								live += int64(n)
							case rnd.IntN(8) == 0:
								n := size(rnd)
								c.Reallocate(held[last], held[last], n, n)
								live += int64(n) - int64(held[last])
								held[last] = n
							default:
								c.Free(held[last], held[last])
								live -= int64(held[last])
								held = held[:last]
							}
							peak = max(peak, live)
							if step%64 == 0 {
								s := c.Stats()
								knows := c.live.Load()
								if s.LiveBytes != live || abs(s.PeakBytes-peak) > s.PeakBound || abs(knows-live) > s.PeakBound || exact && s.PeakBound != 0 {
									t.Errorf("%v, and the peakTracker has %d; want %d bytes live and a peak of %d", s, knows, live, peak)
									mu.Unlock()
									return
								}
							}
							mu.Unlock()
						}
					})
				}
				wg.Wait()
				s := c.Stats()
				if name == "large" && s.PeakBound != 0 {
					t.Errorf("the peak of large blocks has the bound %d, want 0", s.PeakBound)
				}
				// A shard may hold back a unit in each of 18 classes and for other sizes.
				if most := int64((shard.NumProcs+1)*2*19) * unit; s.PeakBound > most {
					t.Errorf("the bound is %d, want at most %d", s.PeakBound, most)
				}
			})
		}
	}
}

func abs(n int64) int64 { return max(n, -n) }

// TestEarlyPeak: the peak of a few blocks of each size is exact.
func TestEarlyPeak(t *testing.T) {
	withoutShards(t)
	var c Counter
	var live int64
	for i := range busy {
		for _, n := range []uintptr{1, 64, 100, 4096, 5000, 1 << 20} {
			c.Allocate(n, n)
			live += int64(n)
		}
		if s := c.Stats(); s.PeakBytes != live || s.PeakBound != 0 {
			t.Fatalf("after %d blocks of each size: %v; want a peak of %d bytes", i+1, s, live)
		}
	}
	for range busy { // after one that was counted in a shard
		c.Allocate(64, 64)
	}
	if s := c.Stats(); s.PeakBytes != live+busy*64 || s.PeakBound != (busy+1)*64 {
		t.Errorf("%v; want a peak of %d bytes with a bound of %d", s, live+busy*64, (busy+1)*64)
	}
}

// TestShardCounts: a processor on which much is counted gets counts of its own, once, and the
// Counter counts on as before.
func TestShardCounts(t *testing.T) {
	var c Counter
	shardtest.Stay(t)
	c.Allocate(1<<20, 1<<20)
	for range busy - 1 {
		c.Allocate(4096, 4096)
	}
	if c.shards.Load() != nil {
		t.Fatalf("there are shards after %d blocks, want them after %d", busy-1, busy)
	}
	c.Allocate(4096, 4096)
	all := func() (list []*shardCounts) {
		c.each(func(s *shardCounts) { list = append(list, s) })
		return list
	}
	got := all()
	if len(got) != 1 || !got[0].owned {
		t.Fatalf("there are the counts %p; want those of one shard", got)
	}
	mine := got[0]
	shared := snapshotEarly(&c.early)
	for range 10 * busy {
		c.Allocate(4096, 4096)
		c.Free(4096, 4096)
		c.Allocate(100, 128)
		c.Allocate(0, 0)
		c.Free(0, 0)
		c.Reallocate(100, 128, 200, 200)
		c.Free(200, 200)
	}
	c.Free(1<<20, 1<<20)
	if snapshotEarly(&c.early) != shared {
		t.Error("it still counts where it did")
	}
	if got := all(); len(got) != 1 || got[0] != mine {
		t.Error("there are counts of other shards")
	}
	want := Stats{
		Allocations: 1 + 21*busy, Frees: 1 + 20*busy, Reallocations: 10 * busy,
		RequestedBytes: 1<<20 + busy*(11*4096+10*300), AllocatedBytes: 1<<20 + busy*(11*4096+10*328), FreedBytes: 1<<20 + busy*(10*4096+10*328),
		LiveBytes: busy * 4096, LiveBlocks: busy, LiveRequestedBytes: busy * 4096,
	}
	s := c.Stats()
	want.PeakBytes, want.PeakBound, want.Classes = s.PeakBytes, s.PeakBound, s.Classes
	if s != want {
		t.Errorf("%+v, want %+v", s, want)
	}
	if peak := int64(1<<20 + busy*4096); abs(s.PeakBytes-peak-4096) > s.PeakBound {
		t.Errorf("a peak of %d ± %d, want %d", s.PeakBytes, s.PeakBound, peak)
	}
}

// snapshotEarly returns the words that count early blocks.
func snapshotEarly(e *early) (counts [earlyKinds]uint32) {
	for i := range counts {
		counts[i] = e.counts[i].Load()
	}
	return counts
}

// withoutShards has Counters count in what all share, as where there are more processors than
// shards.
func withoutShards(t *testing.T) {
	own := shard.NumProcs
	shard.NumProcs = 0
	t.Cleanup(func() { shard.NumProcs = own })
}

// TestSharedCounts: processors beyond those that may have counts of their own share some, also
// where others have their own.
func TestSharedCounts(t *testing.T) {
	var others Counter
	for range busy {
		others.Allocate(4096, 4096)
	}
	withoutShards(t)
	others.procs.Store(0)
	if others.Free(4096, 4096); others.early.word(newKind(freed, 12, power)).Load()>>kindBits != 1 {
		t.Error("it has counted in the shard of another")
	}
	var c Counter
	const blocks = 10 * busy
	for range blocks {
		c.Allocate(4096, 4096)
		c.Allocate(5000, 5000)
	}
	shared := c.shared.Load()
	if s := c.Stats(); s.LiveBlocks != 2*blocks || s.LiveBytes != 9096*blocks || shared == nil || shared.owned {
		t.Errorf("%v; want %d blocks live, in counts %p that are shared", s, 2*blocks, shared)
	}
}

// TestManyKinds: a Counter that has no room for another kind of blocks counts it in a shard.
func TestManyKinds(t *testing.T) {
	for _, own := range []int{0, shard.NumProcs} {
		t.Run(fmt.Sprint(own), func(t *testing.T) {
			withoutShards(t)
			shard.NumProcs = own
			var c Counter
			var want Stats
			for i := range 45 {
				size := uintptr(1) << (i % 30)
				granted := size + uintptr(i/30)
				c.Allocate(size, granted)
				want.AllocatedBytes += int64(granted)
				want.RequestedBytes += int64(size)
				if grown := c.shards.Load() != nil || c.shared.Load() != nil; grown != (i >= earlyKinds) {
					t.Fatalf("after %d kinds it has shards: %v", i+1, grown)
				}
			}
			if s := c.Stats(); s.Allocations != 45 || s.AllocatedBytes != want.AllocatedBytes || s.LiveBytes != want.AllocatedBytes ||
				s.RequestedBytes != want.RequestedBytes || s.PeakBytes != want.AllocatedBytes || s.PeakBound != 0 {
				t.Errorf("%+v, want 45 blocks of %d bytes, and %d requested", s, want.AllocatedBytes, want.RequestedBytes)
			}
		})
	}
}

// TestPeakTracker: when a class's stride is full the peakTracker has just what is live,
// whichever way blocks came and went.
func TestPeakTracker(t *testing.T) {
	const stride = unit / 4096
	shardtest.Stay(t)
	var c Counter
	know := func(what string, want int64) {
		t.Helper()
		if live := c.live.Load(); live != want {
			t.Errorf("after %s the peakTracker has %d bytes, want %d", what, live, want)
		}
	}
	for range stride {
		c.Allocate(4096, 4096)
	}
	know("allocations", stride*4096)
	for range stride {
		c.Reallocate(4096, 4096, 1024, 1024)
	}
	know("reallocations", stride*1024)
	for range stride {
		c.Free(1024, 1024)
	}
	know("frees", 0)
	for range 10 * busy {
		c.Allocate(unit-1, unit-1)
	}
	if live, want := c.live.Load(), c.Stats().LiveBytes; abs(live-want) >= unit {
		t.Errorf("after odd allocations the peakTracker has %d bytes, want %d", live, want)
	}
}

// TestPeakOfOne: one goroutine that allocates on a processor and frees on another has the peak
// that it has on one, and never more than was live.
func TestPeakOfOne(t *testing.T) {
	own := shard.NumProcs
	shard.NumProcs = 3
	defer func() { shard.NumProcs = own }()
	for _, size := range []uintptr{64, 100, 4096, 300_000} {
		var c Counter
		list := make([]atomic.Pointer[shardCounts], shard.NumProcs)
		for i := range list {
			list[i].Store(&shardCounts{owned: true})
		}
		c.setShards(list)
		for n := range 10_000 {
			p := shard.Pin()
			c.countIn(p, list[n%3].Load(), allocated, size, size)
			c.countIn(p, list[n/7%3].Load(), freed, size, size)
			p.Unpin()
			if s := c.Stats(); s.PeakBytes != int64(size) {
				t.Fatalf("size %d: after %d blocks, one at a time: %v", size, n+1, s)
			}
		}
		if c.highest.Load() == int64(size) && size == 64 {
			t.Error("no processor has published more than there was: the test shows nothing")
		}
	}
}

// TestPeakOfTree: the peak is not less than what is live, where it was not published.
func TestPeakOfTree(t *testing.T) {
	withoutShards(t)
	var root Counter
	child := root.Child()
	for range 2*busy + 10 {
		child.Allocate(4096, 4096)
	}
	if s := root.Stats(); s.PeakBytes < s.LiveBytes || s.PeakBound != (busy+10)*4096 {
		t.Errorf("%v: the peak is less than what is live", s)
	}
	exact := Exact().Child()
	for range busy + 10 {
		exact.Allocate(4096, 4096)
		exact.Free(4096, 4096)
	}
	if s := exact.Stats(); s.PeakBytes != 4096 || s.PeakBound != 0 {
		t.Errorf("the child of an exact Counter: %v", s)
	}
}
