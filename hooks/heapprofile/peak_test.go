package heapprofile

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
)

// atPeak returns the bytes of a peak by place and labels, after a look at whether they are its sum.
func atPeak(t *testing.T, k *Peak) map[string]int64 {
	t.Helper()
	at := k.Get()
	bySite := make(map[string]int64)
	var blocks, bytes int64
	for _, s := range at.Samples {
		bySite[place(s)+fmt.Sprint(s.Labels)] += s.LiveBytes
		blocks, bytes = blocks+s.LiveBlocks, bytes+s.LiveBytes
	}
	if bytes != at.Bytes || at.Error == 0 && blocks != at.Blocks {
		t.Errorf("the sites have %d bytes in %d blocks at the peak, the peak is %d in %d", bytes, blocks, at.Bytes, at.Blocks)
	}
	return bySite
}

// TestPeak compares random programs with a model that knows every block: of the whole, of one of two Proxies, of children of a name, of one of
// these, and of one that is not there; from the start, from a reset, and from some time on.
func TestPeak(t *testing.T) {
	programs := uint64(100)
	if testing.Short() {
		programs = 25
	}
	for seed := range programs {
		r := rand.New(rand.NewPCG(1, seed))
		p := New(Options{Rate: 1, Peak: true})
		inner := new(stubborn)
		mem := alloctrace.Wrap(inner, alloctrace.WithName("mem"), alloctrace.WithHooks(p))
		other := alloctrace.Wrap(inner, alloctrace.WithName("other"), alloctrace.WithHooks(p))
		children := []*alloctrace.Proxy{mem, mem.Child("index"), mem.Child("cache"), other, other.Child("index")}
		names := []string{"", "index", "cache", "", "index"}
		places := []func(testing.TB, blockalloc.Allocator, uintptr) blockalloc.Block{placeA, placeB}
		type liveBlock struct {
			blockalloc.Block
			child int
			site  string
		}
		live := make([]liveBlock, 0, 100)
		now := func(of []int) map[string]int64 {
			sites := make(map[string]int64)
			for _, b := range live {
				if slices.Contains(of, b.child) {
					sites[b.site] += int64(b.Size())
				}
			}
			return sites
		}
		total := func(sites map[string]int64) (sum int64) {
			for n := range maps.Values(sites) {
				sum += n
			}
			return sum
		}
		type watch struct {
			name string
			of   []int // children
			peak *Peak
			most map[string]int64

			closed bool
		}
		all := []int{0, 1, 2, 3, 4}
		watches := []*watch{
			{name: "all", of: all, peak: p.Peak()},
			{name: "index", of: []int{1, 4}, peak: p.NewPeak("index")},
			{name: "nobody", peak: p.NewPeak("nobody")},
			{name: "mem", of: all[:3], peak: p.PeakOf("mem", "")},
			{name: "other", of: all[3:], peak: p.PeakOf("other", "")},
			{name: "mem/index", of: all[1:2], peak: p.PeakOf("mem", "index")},
			{name: "other/index", of: all[4:], peak: p.PeakOf("other", "index")},
		}
		look := func() {
			for _, w := range watches {
				if is := now(w.of); !w.closed && total(is) > total(w.most) {
					w.most = is
				}
			}
		}
		for step := range 200 {
			switch n := r.IntN(10); {
			case n < 5 || len(live) == 0:
				child, at := r.IntN(len(children)), r.IntN(len(places))
				b := liveBlock{places[at](t, children[child], 1+uintptr(r.UintN(1000))), child, ""}
				b.site = "placeA[]"
				if name := names[child]; name != "" {
					b.site = fmt.Sprintf("placeA[{allocator %s}]", name)
				}
				live = append(live, b)
			case n < 6:
				inner.err = errors.New("not today")
				if b := live[r.IntN(len(live))]; children[b.child].Free(b.Block) == nil {
					t.Fatal("the free has not failed")
				}
				inner.err = nil
			default:
				i := r.IntN(len(live))
				if err := children[live[i].child].Free(live[i].Block); err != nil {
					t.Fatal(err)
				}
				live[i] = live[len(live)-1]
				live = live[:len(live)-1]
			}
			look()
			switch step {
			case 50:
				watches = append(watches, &watch{name: "later", of: all, peak: p.NewPeak(), most: now(all)})
			case 100:
				for _, w := range []*watch{watches[1], watches[3]} {
					w.peak.Reset()
					w.most = now(w.of)
				}
			case 150: // it stays what it is
				last := watches[len(watches)-1]
				last.peak.Close()
				last.closed = true
				last.peak.Reset()
			}
			for _, w := range watches {
				if got := atPeak(t, w.peak); total(got) != total(w.most) || !maps.Equal(got, w.most) && len(w.most) > 0 {
					t.Fatalf("seed %d, step %d: at the peak of %s there were %v, want %v", seed, step, w.name, got, w.most)
				}
			}
		}
	}
}

// TestPeakOfSample: a peak of a sample differs from the counter's as its standard error and the counter's bound say.
func TestPeakOfSample(t *testing.T) {
	squares := 0.0
	const trials = 100
	for seed := range uint64(trials) {
		r := rand.New(rand.NewPCG(2, seed))
		p := New(Options{Rate: 32 << 10, Peak: true})
		mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(p), alloctrace.WithCounter(counter.Exact()))
		var live []blockalloc.Block
		for i := range 4000 {
			if i < 2500 || r.IntN(3) == 0 {
				live = append(live, placeA(t, mem, 100+uintptr(r.UintN(5000))))
				continue
			}
			giveBack(t, mem, live[len(live)-1])
			live = live[:len(live)-1]
		}
		at := p.Peak().Get()
		z := float64(at.Bytes-mem.Stats().PeakBytes) / float64(at.Error)
		squares += z * z / trials
		if at.Error == 0 || at.Error > at.Bytes/5 {
			t.Fatalf("%d bytes with a standard error of %d", at.Bytes, at.Error)
		}
	}
	if squares < 0.4 || squares > 2 { // 1, with a standard deviation of a seventh
		t.Errorf("the squares of the differences are %.2f times those of the standard errors, want 1", squares)
	}
}

// TestPeakStorm: while goroutines allocate and free, a peak is never more than the counter's, nor less than that by more than what
// is under way; its sites are its sum at any time.
func TestPeakStorm(t *testing.T) {
	const workers, largest = 4, 5000
	p := New(Options{Rate: 1, Peak: true, Lifetimes: true})
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(p), alloctrace.WithCounter(counter.Exact()))
	var storm sync.WaitGroup
	for w := range workers {
		storm.Go(func() {
			r := rand.New(rand.NewPCG(4, uint64(w)))
			var live []blockalloc.Block
			for i := range 3000 {
				if len(live) == 0 || r.IntN(5) < 3 {
					live = append(live, placeA(t, mem, 1+uintptr(r.UintN(largest))))
				} else {
					giveBack(t, mem, live[0])
					live = live[1:]
				}
				if i%300 == 0 {
					atPeak(t, p.Peak())
					later := p.NewPeak("")
					atPeak(t, later)
					later.Close()
				}
			}
			for _, b := range live {
				giveBack(t, mem, b)
			}
		})
	}
	storm.Wait()
	got, want := p.Peak().Get().Bytes, mem.Stats().PeakBytes
	if got > want || got < want-workers*largest {
		t.Errorf("the peak is %d, that of the counter %d", got, want)
	}
	if again := p.NewPeak(); again.Get().Bytes != 0 || len(again.Get().Samples) != 0 {
		t.Errorf("nothing is live, and a new peak has %+v", again.Get())
	}
}

// TestPeakText: a line for each site, and 50 at most.
func TestPeakText(t *testing.T) {
	p := New(Options{Rate: 1, Peak: true})
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(p))
	if got := p.Peak().Get().String(); got != "nothing was live\n" {
		t.Errorf("%q", got)
	}
	var blocks []blockalloc.Block
	for i := range 2 {
		blocks = append(blocks, placeA(t, mem, 1000), placeB(t, mem, 24+uintptr(i)*24))
	}
	for _, b := range blocks {
		giveBack(t, mem, b)
	}
	const want = `^2.02 KiB in 4 blocks were live at the peak:
  1.95 KiB in 2 blocks: heapprofile.placeA \(profile_test.go:\d+\), heapprofile.TestPeakText \(peak_test.go:\d+\)
  72 B in 2 blocks: heapprofile.placeA \(profile_test.go:\d+\), heapprofile.placeB \(profile_test.go:\d+\), heapprofile.TestPeakText \(peak_test.go:\d+\)
$`
	if got := p.Peak().Get().String(); !regexp.MustCompile(want).MatchString(got) {
		t.Errorf("%s\nwant %s", got, want)
	}
	many := AtPeak{Blocks: 60, Bytes: 6000, Error: 100, Samples: slices.Repeat([]Sample{{LiveBlocks: 1, LiveBytes: 100}}, 60)}
	if got := many.String(); strings.Count(got, "\n") != 52 || !strings.HasPrefix(got, "5.86 KiB ± 100 B in 60 blocks") || !strings.HasSuffix(got, "  1000 B at 10 more sites\n") {
		t.Errorf("60 sites are\n%s", got)
	}
}

// TestPeakTime: a peak has the time at which it was reached, and a new one that of its beginning.
func TestPeakTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := New(Options{Rate: 1, Peak: true})
		mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(p))
		begin := time.Now()
		for hours, size := range []uintptr{100, 300, 200} {
			if got := p.NewPeak().Get().Time; !got.Equal(begin.Add(time.Duration(hours) * time.Hour)) {
				t.Errorf("after %d h, a new peak is of %v", hours, got.Sub(begin))
			}
			giveBack(t, mem, placeA(t, mem, size))
			time.Sleep(time.Hour)
		}
		if got := p.Peak().Get().Time.Sub(begin); got != time.Hour {
			t.Errorf("the peak is of %v, want 1 h", got)
		}
	})
}

// TestPeakOf: a name that was not observed has none, and only so many have one. The others are part of the whole, and of their Proxy.
func TestPeakOf(t *testing.T) {
	p := New(Options{Rate: 1, Peak: true})
	var first *alloctrace.Proxy
	for i := range maxNamed {
		mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithName(fmt.Sprint(i)), alloctrace.WithHooks(p))
		giveBack(t, mem, placeA(t, mem, uintptr(100+i)))
		if i == 0 {
			first = mem
		}
	}
	late := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithName("late"), alloctrace.WithHooks(p))
	giveBack(t, late, placeA(t, late, 5000))
	child := first.Child("child")
	giveBack(t, child, placeA(t, child, 3000))
	if p.PeakOf("late", "") != nil || p.PeakOf("0", "child") != nil || p.PeakOf("nobody", "") != nil {
		t.Error("there are peaks of what has none")
	}
	for name, want := range map[string]int64{"0": 3000, "1": 101, fmt.Sprint(maxNamed - 1): 100 + maxNamed - 1} {
		if got := p.PeakOf(name, "").Get().Bytes; got != want {
			t.Errorf("the peak of %s is %d, want %d", name, got, want)
		}
	}
	if got := p.Peak().Get().Bytes; got != 5000 {
		t.Errorf("the peak of all is %d, want 5000", got)
	}
}

// TestPeakOff: without the option there is none.
func TestPeakOff(t *testing.T) {
	p := New(Options{})
	alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithName("mem"), alloctrace.WithHooks(p))
	if p.Peak() != nil || p.PeakOf("mem", "") != nil {
		t.Error("there is a peak")
	}
	defer func() {
		if got := fmt.Sprint(recover()); got != "heapprofile: Profile.NewPeak: set Peak in the Options of New" {
			t.Errorf("NewPeak panics with %q", got)
		}
	}()
	p.NewPeak()
}
