package counter

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/alloctrace/alloctrace/internal/shard"
	"github.com/alloctrace/alloctrace/internal/shard/shardtest"
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
				if most := int64((shard.Own+1)*2*19) * unit; s.PeakBound > most {
					t.Errorf("the bound is %d, want at most %d", s.PeakBound, most)
				}
			})
		}
	}
}

func abs(n int64) int64 { return max(n, -n) }

// TestEarlyPeak: the peak of a few blocks of each size is exact.
func TestEarlyPeak(t *testing.T) {
	atHome(t)
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
	if s := c.Stats(); s.PeakBytes != live+64 || s.PeakBound != (early+1)*64 {
		t.Errorf("%v; want a peak of %d bytes with a bound of %d", s, live+64, (early+1)*64)
	}
}

// TestTallies: a shard that counts much gets a tally of its own, once, and the Counter
// counts on as before.
func TestTallies(t *testing.T) {
	var c Counter
	shardtest.Stay(t)
	c.Allocate(1<<20, 1<<20)
	for range early - 1 {
		c.Allocate(4096, 4096)
	}
	if c.tallies.Load() != nil {
		t.Fatalf("there are tallies after %d blocks, want them after %d", early-1, early)
	}
	c.Allocate(4096, 4096)
	p := shard.Pin()
	i := p.Index
	mine := c.tally(i)
	p.Unpin()
	if all := c.all(nil); mine == nil || !mine.own || len(all) != 2 || all[0] != &c.home || all[1] != mine {
		t.Fatalf("shard %d has the tally %p, and all are %p; want home %p and one more", i, mine, all, &c.home)
	}
	home := c.home.flows[allocated].powers[12].Load()
	for range 10 * early {
		c.Allocate(4096, 4096)
		c.Free(4096)
		c.Allocate(100, 128)
		c.Allocate(0, 0)
		c.Free(0)
		c.Reallocate(128, 200, 200)
		c.Free(200)
	}
	c.Free(1 << 20)
	if c.home.flows[allocated].powers[12].Load() != home {
		t.Error("it still counts where it did")
	}
	if c.tally(i) != mine || len(c.all(nil)) != 2 {
		t.Error("there are more tallies than one")
	}
	want := Stats{
		Allocations: 1 + 21*early, Frees: 1 + 20*early, Reallocations: 10 * early,
		RequestedBytes: 1<<20 + early*(11*4096+10*300), AllocatedBytes: 1<<20 + early*(11*4096+10*328), FreedBytes: 1<<20 + early*(10*4096+10*328),
		LiveBytes: early * 4096, LiveBlocks: early,
	}
	got := c.Stats()
	want.PeakBytes, want.PeakBound, want.Classes = got.PeakBytes, got.PeakBound, got.Classes
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if peak := int64(1<<20 + early*4096); abs(got.PeakBytes-peak-4096) > got.PeakBound {
		t.Errorf("a peak of %d ± %d, want %d", got.PeakBytes, got.PeakBound, peak)
	}
}

// atHome has Counters count at home, as where there are more processors than shards.
func atHome(t *testing.T) {
	own := shard.Own
	shard.Own = 0
	t.Cleanup(func() { shard.Own = own })
}

// TestNoTally: a shard beyond those that may have a tally counts at home, and does not
// grow, also where others have.
func TestNoTally(t *testing.T) {
	var others Counter
	for range early {
		others.Allocate(4096, 4096)
	}
	atHome(t)
	if others.Free(4096); others.home.flows[freed].powers[12].Load() != 1 {
		t.Error("it has counted in a tally of another")
	}
	var c Counter
	const blocks = 10 * early
	for range blocks {
		c.Allocate(4096, 4096)
		c.Allocate(5000, 5000)
	}
	if s := c.Stats(); s.LiveBlocks != 2*blocks || s.LiveBytes != 9096*blocks || c.tallies.Load() != nil {
		t.Errorf("%v; want %d blocks live, all counted at home", s, 2*blocks)
	}
}

// TestLevelKnows: when a class's stride is full the level knows just what is live,
// whichever way blocks came and went.
func TestLevelKnows(t *testing.T) {
	const stride = unit / 4096
	shardtest.Stay(t)
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

// TestPeakOfOne: one goroutine that allocates on a processor and frees on another has the peak
// that it has on one, and never more than was live.
func TestPeakOfOne(t *testing.T) {
	own := shard.Own
	shard.Own = 3
	defer func() { shard.Own = own }()
	for _, size := range []uintptr{64, 100, 4096, 300_000} {
		var c Counter
		list := make([]atomic.Pointer[tally], shard.Own)
		for i := range list {
			list[i].Store(&tally{own: true})
		}
		c.tallies.Store(&list[0])
		for n := range 10_000 {
			p := shard.Pin()
			c.countIn(p, list[n%3].Load(), allocated, size, size)
			c.countIn(p, list[n/7%3].Load(), freed, size, size)
			p.Unpin()
			if s := c.Stats(); s.PeakBytes != int64(size) {
				t.Fatalf("size %d: after %d blocks, one at a time: %v", size, n+1, s)
			}
		}
		if c.top.Load() == int64(size) && size == 64 {
			t.Error("no processor has told of more than there was: the test shows nothing")
		}
	}
}

// TestPeakOfTree: the peak is not less than what is live, where no peak was told of it.
func TestPeakOfTree(t *testing.T) {
	atHome(t)
	var root Counter
	child := root.Child()
	for range early + 10 {
		child.Allocate(4096, 4096)
	}
	if s := root.Stats(); s.PeakBytes < s.LiveBytes || s.PeakBound != (early+10)*4096 {
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

// TestWhole: a view knows of tallies and children that came to be after it.
func TestWhole(t *testing.T) {
	var c Counter
	v := c.view()
	if !v.whole() {
		t.Error("nothing has changed")
	}
	for range early {
		c.Allocate(1, 1)
	}
	if v.whole() {
		t.Error("there is a tally more")
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
