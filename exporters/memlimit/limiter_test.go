package memlimit

import (
	"errors"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"runtime/metrics"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/fstest"
	"testing/synctest"
	"time"

	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
)

const unit = 100 * mib // 10 of them are what a 32-bit system has, and hundredths are whole

// limitIs fails t if Go's memory limit is not n.
func limitIs(t *testing.T, what string, n int64) {
	t.Helper()
	if got := debug.SetMemoryLimit(-1); got != n {
		t.Errorf("%s: Go's limit is %s, want %s", what, counter.FormatBytes(got), counter.FormatBytes(n))
	}
}

// offHeap is a source that a test sets.
func offHeap() (*atomic.Int64, Bytes) {
	n := new(atomic.Int64)
	return n, n.Load
}

// tick lets n ticks of the fake clock happen.
func tick(n int) {
	time.Sleep(time.Duration(n) * 20 * time.Millisecond)
	synctest.Wait()
}

// TestLimiter has a Limiter follow blocks that come and go, tick by tick.
func TestLimiter(t *testing.T) {
	found := debug.SetMemoryLimit(-1)
	mem := alloctest.New(t, alloctest.WithAllocator(new(blockalloc.System)))
	synctest.Test(t, func(t *testing.T) {
		other, source := offHeap()
		other.Store(10 * mib)
		l, err := New(Options{Budget: 10 * unit}, mem, source)
		if err != nil {
			t.Fatal(err)
		}
		limitIs(t, "at the start", 10*unit-10*mib)
		block, err := mem.Allocate(blockalloc.Layout{Size: 4 * unit, Align: 4096})
		if err != nil {
			t.Fatal(err)
		}
		tick(1)
		limitIs(t, "a tick after 400 MiB were allocated", 6*unit-10*mib)
		other.Store(mib) // within the band
		tick(5)
		limitIs(t, "when 9 MiB had gone", 6*unit-10*mib)
		other.Store(unit)
		tick(1)
		limitIs(t, "a tick after there were 100 MiB elsewhere", 5*unit)
		other.Store(7 * unit)
		tick(3)
		limitIs(t, "at the floor", unit)
		if err := mem.Free(block); err != nil {
			t.Fatal(err)
		}
		other.Store(0)
		tick(1)
		limitIs(t, "a tick after all was freed", unit+10*unit/100)
		tick(99)
		limitIs(t, "when it had risen to the budget", 10*unit)
		tick(1000)
		want := Stats{Budget: 10 * unit, From: "Options.Budget", Floor: unit, Limit: 10 * unit, Ticks: 1 + 1 + 5 + 1 + 3 + 100 + 1000,
			Lowered: 4, Raised: 90, AtFloor: 3}
		if found < want.Limit { // New raised it then
			want.Lowered, want.Raised = 3, 91
		}
		if got := l.Stats(); got != want {
			t.Errorf("Stats = %+v\nwant    %+v", got, want)
		}
		l.Close()
		l.Close()
		limitIs(t, "after Close", found)
		tick(10)
		if got := l.Stats(); got != want {
			t.Errorf("Stats = %+v after Close\nwant    %+v", got, want)
		}
	})
}

// TestBudgetChanges: the limit of a running container is changed, unreadable, and gone.
func TestBudgetChanges(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(math.MaxInt64))
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		write := func(name, text string) {
			t.Helper()
			name = filepath.Join(dir, name)
			if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		write("proc/self/cgroup", "0::/\n")
		write("proc/self/mountinfo", mountV2)
		limit := func(text string) { write("sys/fs/cgroup/memory.max", text) }
		limit("1048576000")
		n, source := offHeap()
		n.Store(2 * unit)
		l, err := newLimiter(Options{Floor: 8 * unit}, os.DirFS(dir), []counter.Source{source})
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		limitIs(t, "at the start", 8*unit) // the floor
		limit("524288000")
		tick(501)
		limitIs(t, "when the container had been halved", 5*unit*9/10) // the floor is the budget
		limit("many")
		tick(501)
		limitIs(t, "when the file had become unreadable", 5*unit*9/10)
		limit("max")
		tick(501)
		limitIs(t, "when the limit had been removed", math.MaxInt64)
		if r := l.Stats(); r.Budget != 0 || r.From != "" || r.Floor != 0 || !strings.HasPrefix(r.String(), "no limit: the cgroup's was removed; off-heap 200 MiB; ") {
			t.Errorf("%+v, %v", r, r)
		}
		tick(1000)
		limitIs(t, "long after it had been removed", math.MaxInt64)
		limit("524288000")
		tick(501)
		limitIs(t, "when it was there again", 5*unit*9/10)
		if err := os.Remove(filepath.Join(dir, "sys/fs/cgroup/memory.max")); err != nil {
			t.Fatal(err)
		}
		tick(501)
		limitIs(t, "when the controller had been switched off", math.MaxInt64)
		n.Store(unit)
		limit("2097152000")
		tick(501)
		tick(101)
		limitIs(t, "when the container had grown", 17*unit)
		if r := l.Stats(); r.Budget != 18*unit || r.From != "/sys/fs/cgroup/memory.max" || r.Floor != 8*unit {
			t.Errorf("%+v", r)
		}
	})
	limitIs(t, "after Close", math.MaxInt64)
}

func TestNewErrors(t *testing.T) {
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(math.MaxInt64))
	_, source := offHeap()
	one := []counter.Source{source}
	for _, c := range []struct {
		o       Options
		sources []counter.Source
		want    string
	}{
		{Options{Budget: -1}, one, "memlimit: New: Options.Budget is -1 bytes: want more than 0, or 0 for GOMEMLIMIT or the cgroup's limit"},
		{Options{Headroom: -0.1}, one, "memlimit: New: Options.Headroom is -0.1: want more than 0 and at most 1, or 0 for 0.9"},
		{Options{Headroom: 1.1}, one, "memlimit: New: Options.Headroom is 1.1: want more than 0 and at most 1, or 0 for 0.9"},
		{Options{Headroom: math.NaN()}, one, "memlimit: New: Options.Headroom is NaN: want more than 0 and at most 1, or 0 for 0.9"},
		{Options{Interval: time.Millisecond}, one, "memlimit: New: Options.Interval is 1ms: want at least 10ms, or 0 for 20ms"},
		{Options{Floor: -1}, one, "memlimit: New: Options.Floor is -1 bytes: want 0 or more"},
		{Options{Budget: 5, Floor: 6}, one, "memlimit: New: Options.Floor is 6 bytes, more than the budget of 5 bytes from Options.Budget: lower the one or raise the other"},
		{Options{Budget: 5}, nil, "memlimit: New: no sources: without off-heap memory GOMEMLIMIT alone does"},
		{Options{}, one, "memlimit: New: no budget: GOMEMLIMIT is not set and no cgroup has a limit: set one of them, or Options.Budget"},
	} {
		l, err := newLimiter(c.o, fstest.MapFS{}, c.sources)
		if err == nil || err.Error() != c.want {
			t.Errorf("%+v: %v\nwant %s", c.o, err, c.want)
		}
		if l != nil {
			l.Close()
		}
		limitIs(t, "after an error", math.MaxInt64)
	}
	if _, err := newLimiter(Options{}, fstest.MapFS{}, one); !errors.Is(err, ErrNoBudget) {
		t.Errorf("%v is no ErrNoBudget", err)
	}
	defer func() {
		if r, want := recover(), "memlimit: New: source 1 is nil: pass a Proxy or another counter.Source"; r != want {
			t.Errorf("it panics with %v, want %s", r, want)
		}
	}()
	_, _ = New(Options{Budget: 5}, source, nil)
}

// TestOneLimiter: of many that start at once one does, and the next when it has stopped.
func TestOneLimiter(t *testing.T) {
	found := debug.SetMemoryLimit(-1)
	for range 3 {
		_, source := offHeap()
		var mu sync.Mutex
		var limiters []*Limiter
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				l, err := New(Options{Budget: unit}, source)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					limiters = append(limiters, l)
				} else if want := "memlimit: New: a Limiter is running already: close it first, or give it all sources"; err.Error() != want {
					t.Errorf("%v, want %s", err, want)
				}
			})
		}
		wg.Wait()
		if len(limiters) != 1 {
			t.Fatalf("%d Limiters run", len(limiters))
		}
		for range 4 {
			wg.Go(func() { _ = limiters[0].Close() })
			wg.Go(func() { _ = limiters[0].Stats() })
		}
		wg.Wait()
		limitIs(t, "after Close", found)
	}
}

// TestIdleGo: a program that makes no garbage any more has its old garbage collected
// when off-heap memory takes its place.
func TestIdleGo(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	runtime.GC() // ends one that is under way, which would count
	n, source := offHeap()
	var garbage [][]byte
	for range 64 {
		garbage = append(garbage, make([]byte, mib))
	}
	garbage[0][0] = 1
	garbage = nil
	s := []metrics.Sample{{Name: "/gc/cycles/total:gc-cycles"}}
	cycles := func() uint64 { // allocates nothing: that could start a collection
		metrics.Read(s)
		return s[0].Value.Uint64()
	}
	synctest.Test(t, func(t *testing.T) {
		l, err := New(Options{Budget: 10 * unit}, source)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		before := cycles()
		n.Store(9 * unit) // the floor is 100 MiB
		tick(1)
		n.Store(0)
		tick(100)
		if got := cycles() - before; got != 0 {
			t.Errorf("%d collections with room for all", got)
		}
	})
	l, err := New(Options{Budget: 256 * mib}, source)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	before := cycles()
	n.Store(200 * mib)       // leaves 56 MiB, and there are 64 of garbage
	for cycles() == before { // if none begins, go test's timeout ends it here
		time.Sleep(time.Millisecond)
	}
}

func TestReportString(t *testing.T) {
	r := Stats{Budget: 320 * mib, From: "GOMEMLIMIT", Floor: 32 * mib, OffHeap: 224 * mib, Limit: 96 * mib, Ticks: 100, Lowered: 70}
	const want = "limit 96 MiB = budget 320 MiB (GOMEMLIMIT) - off-heap 224 MiB, floor 32 MiB; lowered 70 times, raised 0 times, at the floor 0 of 100 ticks"
	if got := r.String(); got != want {
		t.Errorf("%s\nwant %s", got, want)
	}
	if strings.Contains(r.String(), "\n") {
		t.Error("more than one line")
	}
}

// BenchmarkTick is what a tick costs that changes nothing, and one that sets the limit.
func BenchmarkTick(b *testing.B) {
	var pool blockalloc.Pool
	mem := alloctest.New(b, alloctest.WithAllocator(&pool))
	for name, step := range map[string]int64{"rest": 0, "set": 64 * mib} {
		b.Run(name, func(b *testing.B) {
			defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1))
			l := &Limiter{sources: []counter.Source{mem}, law: newLaw(unit, 0, time.Second), stats: Stats{Budget: unit}}
			b.ReportAllocs()
			for i := int64(0); b.Loop(); i++ {
				off := l.offHeap() + i%2*step
				l.set(l.next(off), off)
			}
		})
	}
	b.Run("budget", func(b *testing.B) {
		l := &Limiter{root: rootDir(""), options: Options{Headroom: 1}, found: math.MaxInt64 - 1}
		for b.Loop() {
			if err := l.budget(); err != nil {
				b.Fatal(err)
			}
		}
	})
}
