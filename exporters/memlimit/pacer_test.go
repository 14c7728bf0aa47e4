package memlimit

import (
	"math"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
)

// atGOGC100 sets GOGC to 100, no memory limit, and has a collection end, until the test has.
func atGOGC100(t testing.TB) {
	t.Helper()
	percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(math.MaxInt64)
	t.Cleanup(func() {
		debug.SetGCPercent(percent)
		debug.SetMemoryLimit(limit)
	})
	runtime.GC()
}

// percentIs fails t if Go's GC percentage is not n.
func percentIs(t *testing.T, what string, n int) {
	t.Helper()
	c := newCollector()
	c.read()
	if got := c.percent(); got != n {
		t.Errorf("%s: GOGC is %d, want %d", what, got, n)
	}
}

// collect returns when p has looked after a collection, and what it has seen. If it never looks, go test's timeout ends it
// here.
func collect(p *Pacer) PacerStats {
	before := p.Stats().Cycles
	for p.Stats().Cycles == before {
		runtime.GC()
		time.Sleep(time.Millisecond)
	}
	return p.Stats()
}

// newTestPacer is newPacer on a machine without cgroups, and Close at the end of the test.
func newTestPacer(t testing.TB, o PacerOptions, offHeap ...counter.Source) *Pacer {
	t.Helper()
	p, err := newPacer(o, fstest.MapFS{}, offHeap)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return p
}

// TestPacer: the real runtime's goal is what it would be with the blocks on the heap, and as they are freed what it was.
func TestPacer(t *testing.T) {
	atGOGC100(t)
	live := make([]byte, 16*mib)
	mem := alloctest.New(t, alloctest.WithAllocator(new(blockalloc.System)))
	p := newTestPacer(t, PacerOptions{}, mem)
	percentIs(t, "with nothing off-heap", 100)
	block, err := mem.Allocate(blockalloc.Layout{Size: 64 * mib, Align: 4096})
	if err != nil {
		t.Fatal(err)
	}
	s := collect(p)
	if s.OffHeap != 64*mib || s.Live < 16*mib || s.Live > 32*mib || s.Base != 100 || s.Yielded {
		t.Fatalf("%+v", s)
	}
	percentIs(t, "with 64 MiB off-heap", s.Percent)
	c := newCollector()
	c.read()
	h := c.heap()
	want := 2*(h.live+64*mib) + h.roots - 64*mib
	if got := goal(); got < want-want/50 || got > want+want/50 {
		t.Errorf("the goal is %s, want %s; %v", counter.FormatBytes(got), counter.FormatBytes(want), p.Stats())
	}
	if err := mem.Free(block); err != nil {
		t.Fatal(err)
	}
	if s := collect(p); s.OffHeap != 0 || s.Percent != 100 {
		t.Errorf("%+v when all was freed", s)
	}
	percentIs(t, "when all was freed", 100)
	runtime.KeepAlive(live)
}

// TestPacerYields: it leaves the percentage alone that another has set, and takes it up again when its own is restored.
func TestPacerYields(t *testing.T) {
	atGOGC100(t)
	n, source := offHeap()
	n.Store(64 * mib)
	p := newTestPacer(t, PacerOptions{}, source)
	own := collect(p).Percent
	if own <= 100 {
		t.Fatalf("%+v", p.Stats())
	}
	before := debug.SetGCPercent(-1) // a part of the program that wants no collection
	n.Store(128 * mib)
	if s := collect(p); !s.Yielded || s.Percent != own {
		t.Errorf("%+v, while GOGC is off", s)
	}
	percentIs(t, "set by another", -1)
	if !strings.HasPrefix(p.Stats().String(), "GC percent left to who set it last; ") {
		t.Error(p.Stats())
	}
	debug.SetGCPercent(before)
	if s := collect(p); s.Yielded || s.Percent <= own || s.OffHeap != 128*mib {
		t.Errorf("%+v, restored", s)
	}
	debug.SetGCPercent(77)
	p.Close()
	percentIs(t, "set by another before Close", 77)
	collected := p.Stats()
	runtime.GC()
	runtime.GC()
	if got := p.Stats(); got != collected {
		t.Errorf("%+v, and %+v after Close", collected, got)
	}
}

// TestPacerRestores: Close restores what NewPacer found, and nothing that was under way sets it again.
func TestPacerRestores(t *testing.T) {
	atGOGC100(t)
	debug.SetGCPercent(150)
	_, source := offHeap()
	many := Bytes(func() int64 { return source() + 512*mib })
	for range 20 {
		p := newTestPacer(t, PacerOptions{}, many)
		if s := p.Stats(); s.Percent <= 150 || s.Base != 150 || s.Sets != 1 {
			t.Fatalf("%+v", s)
		}
		percentIs(t, "paced", p.Stats().Percent)
		runtime.GC() // its update is somewhere on the way
		p.Close()
		percentIs(t, "closed", 150)
		runtime.GC()
		percentIs(t, "closed and collected", 150)
	}
}

// TestPacerOff: with GOGC=off there is no pace.
func TestPacerOff(t *testing.T) {
	atGOGC100(t)
	debug.SetGCPercent(-1)
	n, source := offHeap()
	n.Store(64 * mib)
	p := newTestPacer(t, PacerOptions{}, source)
	percentIs(t, "paced", -1)
	if s := collect(p); s.Base != -1 || s.Percent != -1 || s.Sets != 0 || s.Yielded || s.String() != "GOGC=off: nothing to pace" {
		t.Errorf("%+v, %v", s, s)
	}
	p.Close()
	percentIs(t, "closed", -1)
}

// TestPacerWithoutFinalizers: it looks by itself each second, for a program may block the runtime's finalizers.
func TestPacerWithoutFinalizers(t *testing.T) {
	atGOGC100(t)
	synctest.Test(t, func(t *testing.T) {
		n, source := offHeap()
		p := &Pacer{options: PacerOptions{MaxGarbage: math.MaxInt64}, sources: []counter.Source{source}, budget: math.MaxInt64, budgetAt: time.Now(),
			collector: newCollector()}
		p.collector.read()
		p.stats.Base, p.stats.Percent = 100, 100
		p.ticks = every(lookEvery, func(time.Time) { p.update() })
		n.Store(64 * mib)
		runtime.GC()
		time.Sleep(time.Second)
		synctest.Wait()
		if s := p.Stats(); s.Cycles != 1 || s.OffHeap != 64*mib || s.Percent <= 100 {
			t.Errorf("%+v a second after a collection", s)
		}
		p.ticks.end()
	})
}

// TestPacerInSynctest: what a finalizer does, outside the bubble, and a fake clock inside do not harm each other.
func TestPacerInSynctest(t *testing.T) {
	atGOGC100(t)
	synctest.Test(t, func(t *testing.T) {
		n, source := offHeap()
		n.Store(64 * mib)
		p, err := newPacer(PacerOptions{}, fstest.MapFS{}, []counter.Source{source})
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			runtime.GC()
			time.Sleep(time.Second)
		}
		synctest.Wait()
		if s := p.Stats(); s.Cycles == 0 || s.Percent <= 100 {
			t.Errorf("%+v", s)
		}
		p.Close()
	})
	percentIs(t, "closed", 100)
}

func TestNewPacerErrors(t *testing.T) {
	atGOGC100(t)
	_, source := offHeap()
	one := []counter.Source{source}
	for _, c := range []struct {
		o       PacerOptions
		root    fstest.MapFS
		sources []counter.Source
		want    string
	}{
		{PacerOptions{MaxGarbage: -1}, nil, one, "memlimit: NewPacer: PacerOptions.MaxGarbage is -1 bytes: want more than 0, or 0 for no bound"},
		{PacerOptions{Budget: -1}, nil, one, "memlimit: NewPacer: PacerOptions.Budget is -1 bytes: want more than 0, or 0 for GOMEMLIMIT or the cgroup's limit"},
		{PacerOptions{}, nil, nil, "memlimit: NewPacer: no sources: without off-heap memory GOGC alone does"},
		{PacerOptions{}, cgroupOf("many"), one, `memlimit: NewPacer: /sys/fs/cgroup/memory.max says "many", want bytes or max: set Options.Budget`},
	} {
		p, err := newPacer(c.o, c.root, c.sources)
		if err == nil || err.Error() != c.want {
			t.Errorf("%+v: %v\nwant %s", c.o, err, c.want)
		}
		if p != nil {
			p.Close()
		}
		percentIs(t, "after an error", 100)
	}
	defer func() {
		if r, want := recover(), "memlimit: NewPacer: source 1 is nil: pass a Proxy or another counter.Source"; r != want {
			t.Errorf("it panics with %v, want %s", r, want)
		}
	}()
	_, _ = NewPacer(PacerOptions{}, source, nil)
}

// TestOnePacer: of many that start at once one does, and the next when it has stopped; collections, Stats and Close meanwhile.
func TestOnePacer(t *testing.T) {
	atGOGC100(t)
	for range 3 {
		n, source := offHeap()
		n.Store(64 * mib)
		var winner atomic.Pointer[Pacer]
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				p, err := newPacer(PacerOptions{}, fstest.MapFS{}, []counter.Source{source})
				if err == nil {
					if winner.Swap(p) != nil {
						t.Error("two Pacers run")
					}
				} else if want := "memlimit: NewPacer: a Pacer is running already: close it first, or give it all sources"; err.Error() != want {
					t.Errorf("%v, want %s", err, want)
				}
			})
		}
		wg.Wait()
		for range 4 {
			wg.Go(func() { runtime.GC(); n.Add(mib) })
			wg.Go(func() { _ = winner.Load().Stats() })
		}
		for range 4 {
			wg.Go(func() { _ = winner.Load().Close() })
		}
		wg.Wait()
		percentIs(t, "after Close", 100)
	}
}

// TestPacerOnGoHeap: what is on the Go heap is not counted again.
func TestPacerOnGoHeap(t *testing.T) {
	atGOGC100(t)
	mem := alloctrace.Wrap(new(blockalloc.Heap))
	b, err := mem.Allocate(blockalloc.Layout{Size: 64 * mib, Align: 4096})
	if err != nil {
		t.Fatal(err)
	}
	p := newTestPacer(t, PacerOptions{}, mem)
	if s := collect(p); s.OffHeap != 0 || s.Percent != 100 || s.Live < 64*mib {
		t.Errorf("%+v", s)
	}
	if err := mem.Free(b); err != nil {
		t.Error(err)
	}
}

func TestPacerStatsString(t *testing.T) {
	s := PacerStats{Base: 100, Percent: 3300, OffHeap: 256 * mib, Live: 8 * mib, Goal: 272 * mib, Cycles: 12, Sets: 3}
	const want = "GC percent 3300 for off-heap 256 MiB and live heap 8 MiB, at GOGC=100; heap goal 272 MiB; set 3 times in 12 collections"
	if got := s.String(); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
}
