package region

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/alloctrace/alloctrace/internal/shard"
)

// A model is what a region should count, for one goroutine.
type model struct{ Totals }

func (m *model) add(in, out int64, blocks int64) {
	m.LiveBytes += in - out
	m.LiveBlocks += blocks
	m.PeakBytes = max(m.PeakBytes, m.LiveBytes)
}

// TestModel: whatever one goroutine does, all numbers are those of a model, the peak too, in the
// region and in that around it.
func TestModel(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	a, b := "a", "b"
	names := []*string{nil, &a, &b}
	for range 50 {
		var outer, elsewhere Region
		r := &Region{Outer: &outer}
		var want, wantOuter model
		shares := map[*string]*[2]int64{nil: {}, &a: {}, &b: {}}
		var live []int64
		both := func(f func(m *model)) { f(&want); f(&wantOuter) }
		for range 500 {
			by, size := names[rnd.IntN(3)], int64(1+rnd.IntN(5000))
			requested := size - int64(rnd.IntN(2))*rnd.Int64N(size)
			i := -1
			if len(live) > 0 {
				i = rnd.IntN(len(live))
			}
			switch op := rnd.IntN(8); {
			case op < 3 || i < 0:
				r.Allocate(uintptr(requested), uintptr(size), by)
				live = append(live, size)
				shares[by][0] += size
				both(func(m *model) {
					m.Allocations++
					m.AllocatedBytes += size
					m.RequestedBytes += requested
					m.add(size, 0, 1)
				})
			case op < 5:
				r.Free(uintptr(live[i]), by)
				shares[by][1] += live[i]
				both(func(m *model) { m.Frees++; m.FreedBytes += live[i]; m.add(0, live[i], -1) })
				live = slices.Delete(live, i, i+1)
			case op == 5:
				if rnd.IntN(4) == 0 {
					size, requested = 0, 0
				}
				r.Reallocate(uintptr(live[i]), uintptr(requested), uintptr(size), by)
				shares[by][0] += size
				shares[by][1] += live[i]
				both(func(m *model) {
					m.Reallocations++
					m.AllocatedBytes += size
					m.RequestedBytes += requested
					m.FreedBytes += live[i]
					gone := int64(0)
					if size == 0 {
						gone = 1
					}
					m.add(size, live[i], -gone)
				})
				if live[i] = size; size == 0 {
					live = slices.Delete(live, i, i+1)
				}
			case op == 6: // out, the region around has it still
				r.Move(uintptr(live[i]), &outer)
				want.MovedOutBytes += live[i]
				want.add(0, live[i], -1)
				outer.Free(uintptr(live[i]), nil)
				wantOuter.Frees++
				wantOuter.FreedBytes += live[i]
				wantOuter.add(0, live[i], -1)
				live = slices.Delete(live, i, i+1)
			default: // in, from elsewhere
				elsewhere.Move(uintptr(size), r)
				live = append(live, size)
				both(func(m *model) { m.MovedInBytes += size; m.add(size, 0, 1) })
			}
		}
		if got := r.Totals(); got != want.Totals {
			t.Fatalf("the region has %+v\nwant %+v", got, want.Totals)
		}
		if got := outer.Totals(); got != wantOuter.Totals {
			t.Fatalf("the region around has %+v\nwant %+v", got, wantOuter.Totals)
		}
		for _, s := range r.Shares() {
			if of := shares[map[string]*string{"a": &a, "b": &b}[s.Name]]; s.AllocatedBytes != of[0] || s.FreedBytes != of[1] {
				t.Fatalf("%+v, want %v", s, *of)
			}
		}
	}
}

// TestForeignFrees: a region that frees what was allocated elsewhere shows nothing as live, and has
// as its peak the most that allocated less freed was.
func TestForeignFrees(t *testing.T) {
	var r Region
	r.Free(100, nil)
	r.Allocate(150, 150, nil)
	r.Allocate(30, 30, nil)
	r.Free(150, nil)
	if got := r.Totals(); got.LiveBytes != 0 || got.PeakBytes != 80 || got.LiveBlocks != 0 || got.AllocatedBytes != 180 || got.FreedBytes != 250 {
		t.Errorf("%+v, want 80 bytes as the peak of 180 allocated and 250 freed", got)
	}
}

// everywhere runs f on n goroutines, which go from processor to processor, with cells of their own,
// and with those that all share.
func everywhere(t *testing.T, n int, f func(t *testing.T, run func(each func(i int)))) {
	for name, procs := range map[string]int{"own": shard.NumProcs, "shared": 0} {
		t.Run(name, func(t *testing.T) {
			own := shard.NumProcs
			shard.NumProcs = procs
			defer func() { shard.NumProcs = own }()
			f(t, func(each func(i int)) {
				var all sync.WaitGroup
				for i := range n {
					all.Go(func() { each(i) })
				}
				all.Wait()
			})
		})
	}
}

// TestPeakHandedOn: where so many blocks are live at once, and one more only when one is freed, the
// peak is theirs to the byte, whoever allocates and frees.
func TestPeakHandedOn(t *testing.T) {
	const goroutines, blocks, size = 8, 3, 4096
	everywhere(t, goroutines, func(t *testing.T, run func(func(int))) {
		var r Region
		live := make(chan struct{}, blocks) // a permit for each block that may be live
		handed := make(chan struct{}, blocks)
		for range blocks {
			r.Allocate(size, size, nil)
			handed <- struct{}{}
		}
		run(func(i int) {
			for range 2000 {
				if i%2 == 0 {
					<-handed
					r.Free(size, nil)
					live <- struct{}{}
				} else {
					<-live
					r.Allocate(size, size, nil)
					handed <- struct{}{}
				}
				runtime.Gosched()
			}
		})
		if got := r.Totals(); got.PeakBytes != blocks*size || got.LiveBytes != blocks*size || got.LiveBlocks != blocks {
			t.Errorf("%+v, want a peak of %d bytes, all live", got, blocks*size)
		}
	})
}

// bounded follows what is live at least and at most.
type bounded struct{ now, most atomic.Int64 }

func (b *bounded) add(n int64) {
	now := b.now.Add(n)
	for most := b.most.Load(); now > most && !b.most.CompareAndSwap(most, now); most = b.most.Load() {
	}
}

// TestStorm: while goroutines allocate, free and hand on blocks in nested regions, snapshots
// show no more than was live, and the peak is between what was live for sure and at most. At rest
// all is exact.
func TestStorm(t *testing.T) {
	const goroutines = 8
	everywhere(t, goroutines, func(t *testing.T, run func(func(int))) {
		var outer Region
		inner := [2]*Region{{Outer: &outer}, {Outer: &outer}}
		var least, most bounded
		var allocated atomic.Int64
		blocks := make(chan int64, goroutines)
		child := "child"
		run(func(i int) {
			rnd := rand.New(rand.NewPCG(3, uint64(i)))
			r := inner[i%2]
			by := []*string{nil, &child}[i/2%2]
			for n := range 3000 {
				size := int64(1 + rnd.IntN(10_000))
				most.add(size)
				r.Allocate(uintptr(size), uintptr(size), by)
				least.add(size)
				allocated.Add(size)
				if n%3 == 0 { // another goroutine frees it, in another region perhaps
					blocks <- size
					size = <-blocks
				}
				least.add(-size)
				r.Free(uintptr(size), by)
				most.add(-size)
				if n%64 == 0 {
					if s := outer.Totals(); s.LiveBytes > most.most.Load() || s.LiveBytes > s.PeakBytes {
						t.Errorf("%+v: more live than %d bytes, or than the peak", s, most.most.Load())
					}
				}
			}
		})
		s := outer.Totals()
		if s.PeakBytes < least.most.Load() || s.PeakBytes > most.most.Load() {
			t.Errorf("the peak is %d bytes, want %d to %d", s.PeakBytes, least.most.Load(), most.most.Load())
		}
		if s.LiveBytes != 0 || s.LiveBlocks != 0 || s.AllocatedBytes != allocated.Load() || s.Allocations != 3000*goroutines || s.Frees != s.Allocations {
			t.Errorf("at rest %+v, want %d bytes in %d blocks allocated and freed", s, allocated.Load(), 3000*goroutines)
		}
		one, two := inner[0].Totals(), inner[1].Totals()
		if one.AllocatedBytes+two.AllocatedBytes != s.AllocatedBytes || one.FreedBytes+two.FreedBytes != s.FreedBytes {
			t.Errorf("the regions inside have %+v and %+v, that around them %+v", one, two, s)
		}
		var byChild int64
		for _, r := range inner {
			for _, share := range r.Shares() {
				byChild += share.AllocatedBytes
			}
		}
		if all := outer.Shares(); len(all) != 1 || all[0].AllocatedBytes != byChild || byChild == 0 {
			t.Errorf("the child has %+v outside and %d bytes inside", all, byChild)
		}
	})
}

// TestManyChildren: more children than a region keeps are counted in its own numbers, and those
// of one name are one.
func TestManyChildren(t *testing.T) {
	var r Region
	names := make([]string, maxChildren+3)
	for i := range names {
		names[i] = string(rune('a' + i))
		again := string([]byte(names[i]))
		r.Allocate(10, 16, &names[i])
		r.Allocate(16, 16, &again)
	}
	if shares := r.Shares(); len(shares) != maxChildren || shares[0] != (Share{"a", 32, 0}) || shares[maxChildren-1] != (Share{"h", 32, 0}) {
		t.Errorf("%+v, want 32 bytes by a to h", shares)
	}
	if s := r.Totals(); s.AllocatedBytes != int64(32*len(names)) || s.RequestedBytes != int64(26*len(names)) {
		t.Errorf("%+v, want 32 bytes for each of %d", s, len(names))
	}
}
