package blockalloc_test

import (
	"errors"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
)

func TestLimitConforms(t *testing.T) {
	t.Parallel()
	used := func(a blockalloc.Allocator) int64 { return a.(*blockalloc.Limit).Used() }
	unbounded := wide
	unbounded.LiveBytes = used
	conforms(t, "Unbounded", unbounded, func(parent blockalloc.Allocator) blockalloc.Allocator {
		return blockalloc.NewLimit(parent, math.MaxInt64)
	})
	bounded := blocktest.Config{MaxSize: 1 << 20, Zeroed: true, Bounded: true, LiveBytes: used}
	conforms(t, "Bounded", bounded, func(parent blockalloc.Allocator) blockalloc.Allocator {
		return blockalloc.NewLimit(parent, 3<<20)
	})
	conforms(t, "Nested", bounded, func(parent blockalloc.Allocator) blockalloc.Allocator {
		return blockalloc.NewLimit(blockalloc.NewLimit(parent, 3<<20), 4<<20)
	})
	conforms(t, "NoOwner", unbounded, func(parent blockalloc.Allocator) blockalloc.Allocator {
		return blockalloc.NewLimit(shy{parent}, math.MaxInt64)
	})
}

// meter is an Owner around another that knows how many bytes of that were live at
// the most.
type meter struct {
	blockalloc.Allocator
	live, peak atomic.Int64
}

func (m *meter) Unwrap() blockalloc.Allocator { return m.Allocator }

func (m *meter) Owns(b blockalloc.Block) bool { return m.Allocator.(blockalloc.Owner).Owns(b) }

func (m *meter) add(size int64) {
	live := m.live.Add(size)
	for {
		peak := m.peak.Load()
		if live <= peak || m.peak.CompareAndSwap(peak, live) {
			return
		}
	}
}

func (m *meter) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	m.add(int64(l.Size))
	b, err := m.Allocator.Allocate(l)
	m.add(int64(b.Size()) - int64(l.Size))
	return b, err
}

// Reallocate counts both blocks while there are both: Heap moves all.
func (m *meter) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	m.add(int64(size))
	n, err := m.Allocator.Reallocate(b, size)
	if err == nil {
		m.add(int64(n.Size()) - int64(size))
		m.add(-int64(b.Size()))
	} else {
		m.add(-int64(size))
	}
	return n, err
}

func (m *meter) Free(b blockalloc.Block) error {
	err := m.Allocator.Free(b)
	if err == nil {
		m.add(-int64(b.Size()))
	}
	return err
}

// TestLimitHolds: neither Used nor the bytes truly live exceed the bound.
func TestLimitHolds(t *testing.T) {
	for name, wrap := range map[string]func(*meter) blockalloc.Allocator{
		"Owner":    func(m *meter) blockalloc.Allocator { return m },
		"no Owner": func(m *meter) blockalloc.Allocator { return shy{m} },
		"slack":    func(m *meter) blockalloc.Allocator { m.Allocator = pages{m.Allocator.(*alloctrace.Proxy)}; return m },
	} {
		t.Run(name, func(t *testing.T) {
			m := &meter{Allocator: alloctest.New(t)}
			var slack int64
			if name == "slack" {
				slack = 4095
			}
			limitHolds(t, m, failing.Every(wrap(m), 17), 100_000, 30_000, slack)
		})
	}
}

// limitHolds uses a Limit around inner from many goroutines while one watches, and checks that in the end all has come
// back. The inner allocator, whose bytes m counts, fails now and then. Of each block so much slack is known only when it is there.
func limitHolds(t *testing.T, m *meter, inner blockalloc.Allocator, limit int64, largest uint, slack int64) {
	t.Helper()
	const workers = 8
	l := blockalloc.NewLimit(inner, limit)
	stop := make(chan struct{})
	var watcher, wg sync.WaitGroup
	watcher.Go(func() {
		for {
			if used := l.Used(); used < 0 || used > limit {
				t.Errorf("Used = %d, want 0 to %d", used, limit)
				return
			}
			select {
			case <-stop:
				return
			default:
				runtime.Gosched() // on one thread nobody else would run
			}
		}
	})
	var refused atomic.Int64
	for w := range workers {
		wg.Go(func() { refused.Add(hammer(t, l, rand.New(rand.NewPCG(1, uint64(w))), largest)) })
	}
	wg.Wait()
	close(stop)
	watcher.Wait()
	bound := limit + workers*slack
	if peak := m.peak.Load(); peak > bound || peak < limit/2 {
		t.Errorf("%d bytes were live, want at most %d, and at least half the bound, or this test shows nothing", peak, bound)
	}
	if refused.Load() == 0 {
		t.Error("no request met the limit")
	}
	if l.Used() != 0 || m.live.Load() != 0 {
		t.Errorf("in the end Used = %d and %d bytes are live, want none", l.Used(), m.live.Load())
	}
}

// TestLimitReservesAround: while the inner allocator is at work, all that it has or
// is about to have is counted.
func TestLimitReservesAround(t *testing.T) {
	var l *blockalloc.Limit
	var seen []int64
	inner := failing.If(alloctest.New(t), func(failing.Call) bool {
		seen = append(seen, l.Used())
		return false
	})
	l = blockalloc.NewLimit(inner, 1000)
	b := mustAllocate(t, l, 100, 4)
	for _, size := range []uintptr{50, 300} {
		n, err := l.Reallocate(b, size)
		if err != nil {
			t.Fatal(err)
		}
		b = n
	}
	mustFree(t, l, b)
	// Each time Resize is tried first, with what the block grows by. The block that grows is moved: by
	// Allocate with both, and Free with both.
	if want := []int64{100, 100, 150, 300, 350, 350, 300}; !slices.Equal(seen, want) || l.Used() != 0 {
		t.Errorf("Used was %v during the calls and %d in the end, want %v and 0", seen, l.Used(), want)
	}
}

// hammer does random operations with blocks of up to largest bytes, and returns how
// often the limit refused.
func hammer(t *testing.T, a blockalloc.Allocator, rnd *rand.Rand, largest uint) (refused int64) {
	var held []blockalloc.Block
	check := func(err error) {
		switch {
		case errors.Is(err, blockalloc.ErrLimit):
			refused++
		case err != nil && !errors.Is(err, failing.ErrInjected):
			t.Error(err)
		}
	}
	for range 3000 {
		if t.Failed() {
			break
		}
		size := uintptr(1 + rnd.UintN(largest))
		switch op := rnd.IntN(3); {
		case op == 0 || len(held) == 0:
			b, err := a.Allocate(blockalloc.Layout{Size: size, Align: 8})
			check(err)
			if err == nil {
				held = append(held, b)
			}
		case op == 1:
			b := &held[rnd.IntN(len(held))]
			n, err := a.Reallocate(*b, size)
			check(err)
			*b = n
		default:
			last := len(held) - 1
			check(a.Free(held[last]))
			held = held[:last]
		}
	}
	for _, b := range held {
		check(a.Free(b))
	}
	return refused
}

// TestLimitIsExact: of many requests at once, as many are served as fit: a refused one
// does not block another, even for a moment.
func TestLimitIsExact(t *testing.T) {
	const size, fit, workers = 100, 5, 16
	mem := alloctest.New(t)
	for range 200 {
		l := blockalloc.NewLimit(mem, size*fit+size-1)
		var held [workers]blockalloc.Block
		var served atomic.Int64
		var wg sync.WaitGroup
		for i := range workers {
			wg.Go(func() {
				var err error
				if held[i], err = l.Allocate(blockalloc.Layout{Size: size, Align: 4}); err == nil {
					served.Add(1)
				}
			})
		}
		wg.Wait()
		if n := served.Load(); n != fit || l.Used() != size*fit {
			t.Fatalf("%d of %d were served and %d bytes are used, want %d and %d", n, workers, l.Used(), fit, size*fit)
		}
		for _, b := range held {
			mustFree(t, l, b)
		}
	}
}

// TestLimitBesideLargeRequests: a request that can never fit is refused without
// blocking one that fits, even for a moment.
func TestLimitBesideLargeRequests(t *testing.T) {
	l := blockalloc.NewLimit(alloctest.New(t), 1000)
	var stop atomic.Bool
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for !stop.Load() {
				if _, err := l.Allocate(blockalloc.Layout{Size: 1001, Align: 1}); !errors.Is(err, blockalloc.ErrLimit) {
					t.Errorf("1001 bytes of 1000: error %v, want ErrLimit", err)
					return
				}
			}
		})
	}
	for range 5000 {
		b, err := l.Allocate(blockalloc.Layout{Size: 1000, Align: 1})
		if err != nil {
			t.Errorf("1000 bytes of 1000: %v", err)
			break
		}
		mustFree(t, l, b)
	}
	stop.Store(true)
	wg.Wait()
}

// TestLimitCountsSlack: what is granted counts, and a block whose slack does not
// fit goes back.
func TestLimitCountsSlack(t *testing.T) {
	inner := pages{alloctest.New(t)}
	m := &meter{Allocator: inner}
	l := blockalloc.NewLimit(m, 10_000)
	b := mustAllocate(t, l, 100, 64)
	if l.Used() != 4096 {
		t.Errorf("Used = %d after a block of a page", l.Used())
	}
	c := mustAllocate(t, l, 100, 64)
	_, err := l.Allocate(blockalloc.Layout{Size: 100, Align: 64})
	if !errors.Is(err, blockalloc.ErrLimit) || !errors.Is(err, blockalloc.ErrOutOfMemory) {
		t.Errorf("error %v, want ErrLimit and ErrOutOfMemory", err)
	}
	if want := "limit reached: 100 B requested and 4096 B granted, 8192 B used, limit 10000 B"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error %v, want one with %q", err, want)
	}
	if l.Used() != 8192 || m.live.Load() != 8192 {
		t.Errorf("Used = %d, %d bytes are live, want 8192 of both", l.Used(), m.live.Load())
	}
	mustFree(t, l, c)
	// 5000 bytes fit beside the old block, the 8192 that are granted for them do not.
	n, err := l.Reallocate(b, 5000)
	if !errors.Is(err, blockalloc.ErrLimit) || n != b || !inner.Owns(b) || l.Used() != 4096 || m.live.Load() != 4096 {
		t.Errorf("Reallocate = %v, %v with %d bytes used; want the block as it was and ErrLimit", n, err, l.Used())
	}
	l.SetMax(4096 + 8192)
	if n, err = l.Reallocate(b, 5000); err != nil || l.Used() != 8192 {
		t.Errorf("Reallocate = %v, %v with %d bytes used, want 8192", n, err, l.Used())
	}
	mustFree(t, l, n)

	// A block that cannot go back is counted as far as the bound allows.
	var kept blockalloc.Block
	l = blockalloc.NewLimit(failing.If(m, func(c failing.Call) bool {
		kept = c.Block
		return frees(c)
	}), 1000)
	if _, err := l.Allocate(blockalloc.Layout{Size: 100, Align: 64}); !errors.Is(err, blockalloc.ErrLimit) || !errors.Is(err, failing.ErrInjected) || l.Used() != 100 {
		t.Errorf("error %v with %d bytes used, want ErrLimit, ErrInjected and 100", err, l.Used())
	}
	mustFree(t, m, kept)
}

// TestLimitReallocation: both blocks count while both may exist, size zero needs no
// room, and a failure gives back what was reserved.
func TestLimitReallocation(t *testing.T) {
	for name, wrap := range map[string]func(blockalloc.Allocator) blockalloc.Allocator{
		"Owner":    func(a blockalloc.Allocator) blockalloc.Allocator { return a },
		"no Owner": func(a blockalloc.Allocator) blockalloc.Allocator { return shy{a} },
	} {
		t.Run(name, func(t *testing.T) {
			m := &meter{Allocator: alloctest.New(t)}
			l := blockalloc.NewLimit(wrap(m), 1000)
			b := mustAllocate(t, l, 400, 8)
			b.Bytes()[0] = 1
			steps := []struct {
				size uintptr
				fits bool
				used int64
			}{{601, false, 400}, {600, true, 600}, {401, false, 600}, {400, true, 400}, {700, false, 400}, {300, true, 300}}
			for _, s := range steps {
				n, err := l.Reallocate(b, s.size)
				if (err == nil) != s.fits || err != nil && (!errors.Is(err, blockalloc.ErrLimit) || n != b) || l.Used() != s.used || n.Bytes()[0] != 1 {
					t.Errorf("Reallocate(%v, %d) = %v, %v with %d bytes used, want %d", b, s.size, n, err, l.Used(), s.used)
				}
				b = n
			}
			if m.peak.Load() > 1000 {
				t.Errorf("%d bytes were live, want at most 1000", m.peak.Load())
			}
			if n, err := l.Reallocate(b, ^uintptr(0)); !errors.Is(err, blockalloc.ErrBadLayout) || n != b || l.Used() != 300 {
				t.Errorf("Reallocate to a bad layout = %v, %v", n, err)
			}
			l.SetMax(0)
			if n, err := l.Reallocate(b, 100); !errors.Is(err, blockalloc.ErrLimit) || n != b {
				t.Errorf("Reallocate = %v, %v; want the block and ErrLimit", n, err)
			}
			if n, err := l.Reallocate(b, 0); err != nil || !n.IsZero() || l.Used() != 0 {
				t.Errorf("Reallocate to zero = %v, %v with %d bytes used", n, err, l.Used())
			}
		})
	}
	// For a block that is not live the error says that, and not that there is no room.
	l := blockalloc.NewLimit(newHeap(t), 100)
	b := mustAllocate(t, l, 100, 4)
	mustFree(t, l, b)
	live := mustAllocate(t, l, 100, 4)
	for _, size := range []uintptr{50, 200} {
		if n, err := l.Reallocate(b, size); !errors.Is(err, blockalloc.ErrNotOwned) && !errors.Is(err, blockalloc.ErrDoubleFree) || n != b {
			t.Errorf("Reallocate of a freed block to %d = %v, %v; want the block and ErrNotOwned or ErrDoubleFree", size, n, err)
		}
	}
	if l.Used() != 100 {
		t.Errorf("Used = %d, want 100", l.Used())
	}
	mustFree(t, l, live)
}

// TestLimitGivesBack: what fails inside is not counted.
func TestLimitGivesBack(t *testing.T) {
	inner := &moody{Allocator: newHeap(t)}
	for _, wrapped := range []blockalloc.Allocator{inner, shy{inner}} {
		l := blockalloc.NewLimit(wrapped, 1000)
		b := mustAllocate(t, l, 100, 4)
		inner.err = errors.New("no luck today")
		for range 20 { // which would use up the bound
			_, err1 := l.Allocate(b.Layout())
			_, err2 := l.Reallocate(b, 200)
			_, err3 := l.Reallocate(b, 50)
			_, err4 := l.Reallocate(b, 0)
			for i, err := range []error{err1, err2, err3, err4, l.Free(b)} {
				if err != inner.err {
					t.Fatalf("call %d: error %v, want the inner one itself", i, err)
				}
			}
		}
		inner.err = nil
		if l.Used() != 100 {
			t.Errorf("Used = %d, want 100", l.Used())
		}
		mustFree(t, l, b)
		if err := l.Free(b); !errors.Is(err, blockalloc.ErrDoubleFree) || l.Used() != 0 {
			t.Errorf("second Free: error %v with %d bytes used", err, l.Used())
		}
	}
}

func TestLimitSetMax(t *testing.T) {
	l := blockalloc.NewLimit(alloctest.New(t), 1000)
	a, b := mustAllocate(t, l, 400, 8), mustAllocate(t, l, 400, 8)
	l.SetMax(500)
	if l.Max() != 500 || l.Used() != 800 {
		t.Errorf("Max = %d, Used = %d, want 500 and 800", l.Max(), l.Used())
	}
	if _, err := l.Allocate(blockalloc.Layout{Size: 1, Align: 1}); !errors.Is(err, blockalloc.ErrLimit) {
		t.Errorf("a byte above the bound: error %v, want ErrLimit", err)
	}
	if _, err := l.Allocate(blockalloc.Layout{Size: 0, Align: 1}); err != nil {
		t.Errorf("Allocate of size zero above the bound: %v", err)
	}
	mustFree(t, l, a)
	if _, err := l.Allocate(blockalloc.Layout{Size: 101, Align: 1}); !errors.Is(err, blockalloc.ErrLimit) {
		t.Errorf("101 bytes of 100: error %v, want ErrLimit", err)
	}
	a = mustAllocate(t, l, 100, 4)
	mustFree(t, l, b)
	l.SetMax(-5)
	if l.Max() != 0 || l.Used() != 100 {
		t.Errorf("Max = %d, Used = %d, want 0 and 100", l.Max(), l.Used())
	}
	l.SetMax(math.MaxInt64)
	b = mustAllocate(t, l, 10_000, 8)
	if l.Used() != 10_100 {
		t.Errorf("Used = %d, want 10100", l.Used())
	}
	mustFree(t, l, a)
	mustFree(t, l, b)
}

// TestLimitLowered: once SetMax has returned, nothing is granted that exceeds the
// new bound, whatever was under way.
func TestLimitLowered(t *testing.T) {
	for range 300 {
		l := blockalloc.NewLimit(new(blockalloc.Heap), 1000)
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for range 20 {
					_, _ = l.Allocate(blockalloc.Layout{Size: 50, Align: 2})
				}
			})
		}
		l.SetMax(500)
		used := l.Used()
		wg.Wait()
		if now := l.Used(); now > max(used, 500) {
			t.Fatalf("%d bytes were used when the bound became 500, and %d later", used, now)
		}
	}
}
