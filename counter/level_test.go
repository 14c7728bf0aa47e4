package counter

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace/internal/shard"
)

// TestPeakBound has several goroutines count the same blocks in a Counter and in a
// model, one operation at a time: the peak is the model's, give or take the bound, all
// the way, and what the level knows of is live, give or take as much.
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
								c.Allocate(n, n)
								held = append(held, n)
								live += int64(n)
							case rnd.IntN(8) == 0:
								n := size(rnd)
								c.Reallocate(held[last], n, n)
								live += int64(n) - int64(held[last])
								held[last] = n
							default:
								c.Free(held[last])
								live -= int64(held[last])
								held = held[:last]
							}
							peak = max(peak, live)
							if step%64 == 0 {
								s := c.Stats()
								knows := c.live.Load()
								if s.LiveBytes != live || abs(s.PeakBytes-peak) > s.PeakBound || abs(knows-live) > s.PeakBound || exact && s.PeakBound != 0 {
									t.Errorf("%v, and the level has %d; want %d bytes live and a peak of %d", s, knows, live, peak)
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
				if most := int64((shard.Count+1)*2*19) * unit; s.PeakBound > most {
					t.Errorf("the bound is %d, want at most %d", s.PeakBound, most)
				}
			})
		}
	}
}

func abs(n int64) int64 { return max(n, -n) }

// TestEarlyPeak: the peak of a few blocks of each size is exact.
func TestEarlyPeak(t *testing.T) {
	var c Counter
	var live int64
	for i := range early {
		for _, n := range []uintptr{1, 64, 100, 4096, 5000, 1 << 20} {
			c.Allocate(n, n)
			live += int64(n)
		}
		if s := c.Stats(); s.PeakBytes != live || s.PeakBound != 0 {
			t.Fatalf("after %d blocks of each size: %v; want a peak of %d bytes", i+1, s, live)
		}
	}
	c.Allocate(64, 64)
	if s := c.Stats(); s.PeakBytes != live+64 || s.PeakBound != 127*64 {
		t.Errorf("%v; want a peak of %d bytes with a bound of %d", s, live+64, 127*64)
	}
}

// TestSpread: a Counter in which goroutines take turns all the time spreads over
// shards, once, and counts on as before.
func TestSpread(t *testing.T) {
	var c Counter
	c.Allocate(1<<20, 1<<20)
	slots := []uint32{3, 4}
	c.home.meeting = shard.Meeting{}
	c.home.meeting.Crowded(slots[1])
	for i := range shard.Patience - 1 {
		if c.spread.Load() != nil {
			t.Fatalf("spread after %d meetings, want %d", i, shard.Patience)
		}
		c.meetAs(&c.home, slots[i%2])
	}
	first := c.spread.Load()
	if first == nil {
		t.Fatalf("not spread after %d meetings", shard.Patience)
	}
	before := c.view()
	if len(before.tallies) != int(shard.Count)+1 {
		t.Errorf("%d tallies, want home and %d shards", len(before.tallies), shard.Count)
	}
	for i := range 10 * shard.Patience {
		c.meetAs(&c.home, slots[i%2])
	}
	if c.spread.Load() != first {
		t.Error("spread again")
	}
	c.Free(1 << 20)
	c.Allocate(4096, 4096)
	if s := c.Stats(); s.LiveBytes != 4096 || s.LiveBlocks != 1 || s.Allocations != 2 || s.PeakBytes != 1<<20 {
		t.Errorf("%v; want 4 KiB live of two allocations, with a peak of 1 MiB", s)
	}
	if n := c.home.allocated.powers[12].Load(); n != 0 {
		t.Error("it still counts where it did")
	}
}

// TestSerialTurns: goroutines that take turns by time slices do not spread a Counter.
func TestSerialTurns(t *testing.T) {
	var c Counter
	for i := range uint32(shard.Patience - 1) {
		for range 1000 {
			c.meetAs(&c.home, i)
		}
	}
	if c.spread.Load() != nil {
		t.Errorf("spread after %d turns", shard.Patience-1)
	}
}

// TestLevelKnows: when a class's stride is full the level knows just what is live,
// whichever way blocks came and went.
func TestLevelKnows(t *testing.T) {
	const stride = unit / 4096
	var c Counter
	know := func(what string, want int64) {
		t.Helper()
		if live := c.live.Load(); live != want {
			t.Errorf("after %s the level has %d bytes, want %d", what, live, want)
		}
	}
	for range stride {
		c.Allocate(4096, 4096)
	}
	know("allocations", stride*4096)
	for range stride {
		c.Reallocate(4096, 1024, 1024)
	}
	know("reallocations", stride*1024)
	for range stride {
		c.Free(1024)
	}
	know("frees", 0)
	for range 10 * early {
		c.Allocate(unit-1, unit-1)
	}
	if live, want := c.live.Load(), c.Stats().LiveBytes; abs(live-want) >= unit {
		t.Errorf("after odd allocations the level has %d bytes, want %d", live, want)
	}
}

// TestPeakOfTree: the peak is not less than what is live, where no peak was told of it.
func TestPeakOfTree(t *testing.T) {
	var root Counter
	child := root.Child()
	for range early + 10 {
		child.Allocate(4096, 4096)
	}
	if s := root.Stats(); s.PeakBytes < s.LiveBytes || s.PeakBound < 10*4096 {
		t.Errorf("%v: the peak is less than what is live", s)
	}
	exact := Exact().Child()
	for range early + 10 {
		exact.Allocate(4096, 4096)
		exact.Free(4096)
	}
	if s := exact.Stats(); s.PeakBytes != 4096 || s.PeakBound != 0 {
		t.Errorf("the child of an exact Counter: %v", s)
	}
}

// TestWhole: a view knows of shards and children that came to be after it.
func TestWhole(t *testing.T) {
	var c Counter
	v := c.view()
	if !v.whole() {
		t.Error("nothing has changed")
	}
	for i := range uint32(2 * shard.Patience) {
		c.meetAs(&c.home, i%2)
	}
	if v.whole() {
		t.Error("the Counter has spread")
	}
	v = c.view()
	c.Child().Child()
	if v.whole() {
		t.Error("there are children")
	}
	if v = c.view(); !v.whole() || len(v.nodes) != 3 {
		t.Errorf("a new view has %d nodes, want 3", len(v.nodes))
	}
}
