package counter

import (
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace/internal/shard"
	"github.com/alloctrace/alloctrace/internal/shard/shardtest"
)

// TestFold: the counts of a child that has ended are its parent's, and the child still has them.
func TestFold(t *testing.T) {
	for name, blocks := range map[string]int{"early": 3, "many kinds": 40, "busy": 5 * busy} {
		t.Run(name, func(t *testing.T) {
			var root Counter
			root.Allocate(100, 128)
			child := root.Child()
			var sizes [][2]uintptr // requested and granted
			for i := range blocks {
				size := uintptr(1) << (i % 22)
				requested := size
				switch i % 3 {
				case 0:
					child.Allocate(size, size)
				case 1:
					size += 3
					requested = size - 1
					child.Allocate(1, 1)
					child.Reallocate(1, 1, size-1, size)
				case 2:
					child.Allocate(size, 2*size)
					size *= 2
				}
				sizes = append(sizes, [2]uintptr{requested, size})
			}
			child.FailAllocate()
			child.FailReallocate()
			child.FailFree()
			if child.Fold() {
				t.Fatal("it has ended, with blocks live")
			}
			for _, size := range sizes {
				child.Free(size[0], size[1])
			}
			whole, own := root.Stats(), child.Stats()
			if whole.LiveRequestedBytes != 100 || own.LiveRequestedBytes != 0 {
				t.Fatalf("%d bytes live of those requested, %d of the child's; want 100 and 0", whole.LiveRequestedBytes, own.LiveRequestedBytes)
			}
			if first, again := child.Fold(), child.Fold(); !first || !again || len(root.kin().children) != 0 {
				t.Fatal("it has not ended, with nothing live")
			}
			check := func(when string) {
				t.Helper()
				got := root.Stats()
				got.PeakBytes, got.PeakBound = whole.PeakBytes, whole.PeakBound
				if got != whole {
					t.Errorf("%s: %+v, want %+v", when, got, whole)
				}
				if s := child.Stats(); s != own {
					t.Errorf("%s: the child has %+v, and had %+v", when, s, own)
				}
			}
			check("after its end")
			for root.busyFormer() > 0 {
				runtime.GC()
				runtime.Gosched()
			}
			check("after a garbage collection")
			if live := root.live.Load(); live != 128 {
				t.Errorf("the parent's peakTracker has %d bytes live, want 128", live)
			}
			if shard.Pinned {
				child.each(func(*shardCounts) { t.Error("it still has shards") })
			}
			// What was under way is counted by the parent.
			const many = 3 * busy
			for range many {
				child.Allocate(64, 64)
				child.Free(64, 64)
			}
			child.Allocate(50, 77)
			child.FailFree()
			late := root.Stats()
			late.PeakBytes, late.PeakBound, late.Classes = whole.PeakBytes, whole.PeakBound, whole.Classes
			want := whole
			want.Allocations += many + 1
			want.Frees += many
			want.FailedFrees++
			want.RequestedBytes += many*64 + 50
			want.AllocatedBytes += many*64 + 77
			want.FreedBytes += many * 64
			want.LiveBytes += 77
			want.LiveRequestedBytes += 50
			want.LiveBlocks++
			if late != want {
				t.Errorf("with what was under way: %+v, want %+v", late, want)
			}
		})
	}
}

func (c *Counter) busyFormer() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.kin().former == nil {
		return 0
	}
	return len(c.offspring.former.busy)
}

// TestFoldTree: a child with children does not end before they do, and what they count then
// is counted by who is left.
func TestFoldTree(t *testing.T) {
	var root Counter
	a := root.Child()
	b := a.Child()
	if a.Fold() || root.Fold() {
		t.Error("a Counter with a child has ended, or the root has")
	}
	b.Allocate(8, 8)
	b.Free(8, 8)
	if !b.Fold() || !a.Fold() {
		t.Error("they have not ended")
	}
	a.Allocate(32, 32)
	b.Allocate(16, 16)
	c := b.Child() // of the root, for both have ended
	c.Allocate(64, 64)
	if s := root.Stats(); s.Allocations != 4 || s.LiveBytes != 112 || s.LiveBlocks != 3 || s.PeakBytes != 112 || s.PeakBound > 48 {
		t.Errorf("%v: want 112 bytes live in 3 blocks", s)
	}
	if c.parent != &root || len(root.kin().children) != 1 {
		t.Error("the child of one that has ended is not the root's")
	}
}

// TestFoldBusyTree: what shards have counted in a child's child goes to who is left, also where both
// end before a garbage collection.
func TestFoldBusyTree(t *testing.T) {
	var root Counter
	a := root.Child()
	b := a.Child()
	const blocks = 3 * busy
	for range blocks {
		b.Allocate(4096, 4096)
		b.Free(4096, 4096)
	}
	if !b.Fold() || !a.Fold() {
		t.Fatal("they have not ended")
	}
	for range 2 {
		if s := root.Stats(); s.Allocations != blocks || s.Frees != blocks {
			t.Errorf("%v, want %d allocations and frees", s, blocks)
		}
		for root.busyFormer() > 0 {
			runtime.GC()
			runtime.Gosched()
		}
	}
}

// TestFoldWhilePinned: what a processor counts in its shard while the child ends is not lost.
func TestFoldWhilePinned(t *testing.T) {
	if !shard.Pinned {
		t.Skip("shards are shared here: TestFoldStorm is the test")
	}
	manyProcs(t, 2)
	var root Counter
	child := root.Child()
	var ready atomic.Bool
	folded := make(chan bool, 1)
	const blocks = 3 * busy
	for range blocks {
		child.Allocate(4096, 4096)
		child.Free(4096, 4096)
	}
	go func() {
		for !ready.Load() {
			runtime.Gosched()
		}
		folded <- child.Fold()
	}()
	counted := int64(0)
	for ended := false; !ended; ended = child.ended.Load() {
		p := shard.Pin()
		if s := child.shardCounts(p.Index); s != nil {
			ready.Store(true)
			for start := time.Now(); time.Since(start) < time.Millisecond; { // in which Fold may end it, if no collection waits for the caller
			}
			p.Add(&s.ops[allocated].powers[12], 1)
			p.Add(&s.ops[freed].powers[12], 1)
			counted++
		}
		p.Unpin()
		runtime.Gosched()
	}
	if !<-folded {
		t.Fatal("it has not ended")
	}
	for root.busyFormer() > 0 {
		runtime.GC()
		runtime.Gosched()
	}
	if s := root.Stats(); s.Allocations != blocks+counted || s.Frees != blocks+counted {
		t.Errorf("%v, want %d allocations and frees", s, blocks+counted)
	}
}

// TestPeakAfterFold: the parent's peakTracker has what an ended child freed of others, and what it
// counts late.
func TestPeakAfterFold(t *testing.T) {
	var root Counter
	root.Allocate(4096, 4096)
	child := root.Child()
	child.Free(4096, 4096)
	if !child.Fold() || root.live.Load() != 0 {
		t.Errorf("%d bytes are live, want none", root.live.Load())
	}
	child.Allocate(1<<20, 1<<20)
	child.Free(1<<20, 1<<20)
	if s := root.Stats(); s.PeakBytes < 1<<20 || s.LiveBytes != 0 {
		t.Errorf("%v, want a peak of 1 MiB", s)
	}
}

// TestPeakOfFormer: the peak of children one after the other is not their sum.
func TestPeakOfFormer(t *testing.T) {
	var root Counter
	for i := range 1000 {
		child := root.Child()
		for range 1 + i%7 {
			child.Allocate(4096, 4096)
		}
		for range 1 + i%7 {
			child.Free(4096, 4096)
		}
		if !child.Fold() {
			t.Fatal("it has not ended")
		}
		if s, want := root.Stats(), int64(4096*min(7, i+1)); s.PeakBytes != want || s.PeakBound != 0 {
			t.Fatalf("after %d children %v, want a peak of %d", i+1, s, want)
		}
	}
}

// TestPeakOfManyFormer: where there are many children, not all are looked at whenever one ends; the
// peak is within its bound all the same, and does not grow with how many have ended.
func TestPeakOfManyFormer(t *testing.T) {
	var root Counter
	const idle, rounds = 4 * fewNodes, 1000
	for range idle {
		root.Child()
	}
	for round := range int64(rounds) {
		a, b := root.Child(), root.Child()
		size := uintptr(4096 + round)
		a.Allocate(size, size)
		b.Allocate(size, size)
		a.Free(size, size)
		b.Free(size, size)
		if !a.Fold() || !b.Fold() {
			t.Fatal("they have not ended")
		}
		if s, peak := root.Stats(), 2*int64(size); peak > s.PeakBytes || peak < s.PeakBytes-s.PeakBound || s.PeakBytes > (idle+2)*int64(size) {
			t.Fatalf("round %d: %v, want a peak of %d", round, s, peak)
		}
	}
}

// TestPeakOfBusyFormer: what a child had not published when it ended is in the bound.
func TestPeakOfBusyFormer(t *testing.T) {
	shardtest.Stay(t)
	var root Counter
	child := root.Child()
	const blocks = busy + 128 + 60 // early ones, a batch, and some that are not published
	for range blocks {
		child.Allocate(64, 64)
	}
	for range blocks {
		child.Free(64, 64)
	}
	before := root.Stats()
	if !child.Fold() {
		t.Fatal("it has not ended")
	}
	for root.busyFormer() > 0 {
		runtime.GC()
		runtime.Gosched()
	}
	if s := root.Stats(); s.PeakBytes != before.PeakBytes || s.PeakBound < before.PeakBytes-s.PeakBytes || s.PeakBytes+s.PeakBound < blocks*64 {
		t.Errorf("a peak of %d ± %d, want %d ± %d as before its end, for it was %d", s.PeakBytes, s.PeakBound, before.PeakBytes, before.PeakBound, blocks*64)
	}
}

// TestPeakWithFormer holds the peak of a tree, whose children come, count and go, against a
// model's: it is within its bound.
func TestPeakWithFormer(t *testing.T) {
	steps := 5_000
	if testing.Short() {
		steps = 1_000
	}
	for _, most := range []int{3, 40, 300} {
		rnd := rand.New(rand.NewPCG(uint64(most), 9))
		type child struct {
			c    *Counter
			held []uintptr
		}
		var root Counter
		var open []*child
		var live, peak int64
		for range steps {
			switch n := len(open); {
			case n == 0 || n < most && rnd.IntN(8) == 0:
				parent := &root
				if n > 0 && rnd.IntN(4) == 0 {
					parent = open[rnd.IntN(n)].c
				}
				open = append(open, &child{c: parent.Child()})
			case rnd.IntN(3) > 0:
				m := open[rnd.IntN(n)]
				size := 1 + uintptr(rnd.IntN(9000))
				m.c.Allocate(size, size)
				m.held = append(m.held, size)
				live += int64(size)
			default:
				i := rnd.IntN(n)
				m := open[i]
				for _, size := range m.held {
					m.c.Free(size, size)
					live -= int64(size)
				}
				m.held = nil
				if m.c.Fold() {
					open[i] = open[n-1]
					open = open[:n-1]
				}
			}
			peak = max(peak, live)
			if s := root.Stats(); s.LiveBytes != live || peak > s.PeakBytes || peak < s.PeakBytes-s.PeakBound {
				t.Fatalf("%v, want %d bytes live and a peak of %d", s, live, peak)
			}
		}
	}
}

// TestFoldStorm ends children while others count in them, and snapshots are taken: nothing is
// lost, and no snapshot is ahead or steps back.
func TestFoldStorm(t *testing.T) {
	const goroutines = 4
	rounds := 300
	switch {
	case os.Getenv("ALLOCTRACE_REQUIRE_ALL") != "":
		rounds = 3_000
	case testing.Short():
		rounds = 50
	}
	manyProcs(t, 4)
	var root Counter
	var working sync.WaitGroup
	var blocks, bytes [goroutines]int64
	for g := range goroutines {
		working.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 3))
			for range rounds {
				child := root.Child()
				var helpers sync.WaitGroup
				n := 1 + rnd.IntN(4*busy)
				size := uintptr(1) << rnd.IntN(10)
				for range 2 {
					helpers.Go(func() {
						for range n {
							child.Allocate(size-size/3, size)
							child.Free(size-size/3, size)
						}
					})
				}
				for range 3 { // under way
					child.Fold()
					runtime.Gosched()
				}
				helpers.Wait()
				if !child.Fold() {
					t.Error("a child has not ended, with nothing live")
				}
				blocks[g] += int64(2 * n)
				bytes[g] += int64(2*n) * int64(size)
			}
		})
	}
	done := make(chan struct{})
	go func() { working.Wait(); close(done) }()
	var last Stats
	for watching := true; watching; {
		select {
		case <-done:
			watching = false
		default:
		}
		runtime.Gosched() // platforms with one thread do not preempt
		s := root.Stats()
		if d := s.Sub(last); d.Allocations < 0 || d.Frees < 0 || d.AllocatedBytes < 0 || s.PeakBytes < s.LiveBytes {
			t.Fatalf("%+v steps back from %+v", s, last)
		}
		if s.LiveBlocks > 2*goroutines {
			t.Fatalf("%v: at most %d blocks can be live", s, 2*goroutines)
		}
		last = s
	}
	var wantBlocks, wantBytes int64
	for g := range goroutines {
		wantBlocks += blocks[g]
		wantBytes += bytes[g]
	}
	check := func() {
		t.Helper()
		if s := root.Stats(); s.Allocations != wantBlocks || s.Frees != wantBlocks || s.AllocatedBytes != wantBytes || s.FreedBytes != wantBytes || s.LiveBytes != 0 || s.LiveRequestedBytes != 0 {
			t.Errorf("%+v, want %d blocks of %d bytes, and none live", s, wantBlocks, wantBytes)
		}
	}
	check()
	for root.busyFormer() > 0 {
		runtime.GC()
		runtime.Gosched()
	}
	check()
	if len(root.kin().children) != 0 {
		t.Errorf("%d children are left", len(root.kin().children))
	}
}
