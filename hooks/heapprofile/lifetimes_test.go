package heapprofile

import (
	"encoding/json"
	"errors"
	"math"
	"math/rand/v2"
	"reflect"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
	"unsafe"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/goroutine"
	"github.com/alloctrace/alloctrace/internal/shard"
)

//go:noinline
func giveBack(t testing.TB, a blockalloc.Allocator, b blockalloc.Block) {
	if err := a.Free(b); err != nil {
		t.Error(err)
	}
}

// Three ways to giveBack.
//
//go:noinline
func oneWay(t testing.TB, a blockalloc.Allocator, b blockalloc.Block) { giveBack(t, a, b) }

//go:noinline
func another(t testing.TB, a blockalloc.Allocator, b blockalloc.Block) { giveBack(t, a, b) }

//go:noinline
func elsewhere(t testing.TB, a blockalloc.Allocator, b blockalloc.Block) { giveBack(t, a, b) }

// innermost returns the name of the function that a stack begins with, without its package.
func innermost(stack []Frame) string {
	if len(stack) == 0 {
		return "nowhere"
	}
	return stack[0].Function[strings.LastIndexByte(stack[0].Function, '.')+1:]
}

// A life is what TestLifetimes knows of a block.
type life struct {
	block     blockalloc.Block
	allocated time.Time
	owner     string
}

// TestLifetimes compares the lifetimes of random programs with a record of all blocks, in time that does not pass by itself.
func TestLifetimes(t *testing.T) {
	for seed := range uint64(20) {
		synctest.Test(t, func(t *testing.T) {
			r := rand.New(rand.NewPCG(1, seed))
			p := New(Options{Rate: 1, Lifetimes: true})
			inner := new(stubborn)
			mem := alloctrace.Wrap(inner, alloctrace.WithHooks(p))
			proxies := map[string]*alloctrace.Proxy{"": mem, "index": mem.Child("index")}
			type sums struct{ blocks, bytes int64 }
			ended, freedBy := make(map[string]map[time.Duration]sums), make(map[string]map[string]int64)
			for owner := range proxies {
				ended[owner], freedBy[owner] = make(map[time.Duration]sums), make(map[string]int64)
			}
			class := func(d time.Duration) time.Duration {
				most := time.Microsecond
				for most < d && most < time.Microsecond<<40 {
					most *= 2
				}
				return most
			}
			add := func(to map[time.Duration]sums, lived time.Duration, size uintptr) {
				s := to[class(lived)]
				to[class(lived)] = sums{s.blocks + 1, s.bytes + int64(size)}
			}
			var live []life
			for range 300 {
				switch n := r.IntN(len(live) + 2); {
				case n >= len(live):
					owner := []string{"", "index"}[r.IntN(2)]
					b := placeA(t, proxies[owner], 1+uintptr(r.UintN(1000)))
					live = append(live, life{b, time.Now(), owner})
				default:
					l := live[n]
					if r.IntN(3) == 0 { // a failure is taken back
						inner.err = errors.New("not today")
						if proxies[l.owner].Free(l.block) == nil {
							t.Fatal("the free has not failed")
						}
						inner.err = nil
						break
					}
					live[n] = live[len(live)-1]
					live = live[:len(live)-1]
					add(ended[l.owner], time.Since(l.allocated), l.block.Size())
					switch r.IntN(3) {
					case 0:
						oneWay(t, proxies[l.owner], l.block)
						freedBy[l.owner]["oneWay"]++
					case 1:
						another(t, proxies[l.owner], l.block)
						freedBy[l.owner]["another"]++
					case 2:
						var wg sync.WaitGroup
						wg.Go(func() { elsewhere(t, proxies[l.owner], l.block) })
						wg.Wait()
						freedBy[l.owner]["elsewhere"]++
					}
				}
				time.Sleep(time.Duration(math.Exp(r.Float64() * 40)))
			}
			for _, l := range p.Lifetimes() {
				if innermost(l.Stack) != "placeA" {
					t.Errorf("allocated by %v", l.Stack)
				}
				alive := make(map[time.Duration]sums)
				for _, b := range live {
					if b.owner == l.Owner {
						add(alive, time.Since(b.allocated), b.block.Size())
					}
				}
				for _, of := range []struct {
					what string
					got  Lived
					want map[time.Duration]sums
				}{{"ended", l.Ended, ended[l.Owner]}, {"live", l.Live, alive}} {
					got := make(map[time.Duration]sums)
					var all sums
					last := time.Duration(0)
					for _, c := range of.got.Times {
						if c.Most <= last {
							t.Errorf("%v after %v", c.Most, last)
						}
						last = c.Most
						got[c.Most] = sums{c.Blocks, c.Bytes}
						all.blocks, all.bytes = all.blocks+c.Blocks, all.bytes+c.Bytes
					}
					if !reflect.DeepEqual(got, of.want) || all != (sums{of.got.Blocks, of.got.Bytes}) {
						t.Errorf("seed %d: %s of %q: %v, in all %d blocks of %d bytes, want %v", seed, of.what, l.Owner, got, of.got.Blocks, of.got.Bytes, of.want)
					}
				}
				if goroutine.ID() != 0 && l.Elsewhere != freedBy[l.Owner]["elsewhere"] {
					t.Errorf("seed %d: %d blocks of %q were freed by other goroutines, want %d", seed, l.Elsewhere, l.Owner, freedBy[l.Owner]["elsewhere"])
				}
				by := make(map[string]int64)
				for _, f := range l.FreedBy {
					if innermost(f.Stack) != "giveBack" {
						t.Errorf("freed by %v", f.Stack)
					}
					by[innermost(f.Stack[1:])] += f.Blocks
				}
				if !reflect.DeepEqual(by, freedBy[l.Owner]) {
					t.Errorf("seed %d: freed by %v, want %v", seed, by, freedBy[l.Owner])
				}
				delete(ended, l.Owner)
			}
			for owner, of := range ended {
				if len(of) > 0 {
					t.Errorf("seed %d: nothing of %q", seed, owner)
				}
			}
			for _, l := range live {
				giveBack(t, proxies[l.owner], l.block)
			}
		})
	}
}

// onProcessor calls f in a goroutine that stays on that processor of the Go runtime, of two. f must not block.
func onProcessor(index int, f func()) {
	var done atomic.Bool
	var wg sync.WaitGroup
	for range 2 { // each keeps a processor busy, so that the other runs on the other one
		wg.Go(func() {
			for !done.Load() {
				p := shard.Pin()
				if p.Index == index && done.CompareAndSwap(false, true) {
					f()
				}
				p.Unpin()
			}
		})
	}
	wg.Wait()
}

// TestOtherProcessor: a block is counted once that was allocated on processor 1 and freed where there is only processor 0, though a free of
// it had failed before. One that another goroutine frees on the same processor is not.
func TestOtherProcessor(t *testing.T) {
	procs := runtime.GOMAXPROCS(1)
	defer runtime.GOMAXPROCS(procs)
	p := New(Options{Rate: 1, Lifetimes: true})
	inner := new(stubborn)
	mem := alloctrace.Wrap(inner, alloctrace.WithHooks(p))
	stays, handed := placeA(t, mem, 100), placeA(t, mem, 100)
	if shard.Pinned {
		var moves blockalloc.Block
		runtime.GOMAXPROCS(2)
		onProcessor(1, func() { moves = placeB(t, mem, 100) })
		runtime.GOMAXPROCS(1)
		inner.err = errors.New("not today")
		if mem.Free(moves) == nil {
			t.Fatal("the free has not failed")
		}
		inner.err = nil
		giveBack(t, mem, moves)
	}
	giveBack(t, mem, stays)
	var wg sync.WaitGroup
	wg.Go(func() { giveBack(t, mem, handed) })
	wg.Wait()
	for _, l := range p.Lifetimes() {
		want := int64(0)
		if innermost(l.Stack[1:]) == "placeB" {
			want = 1
		}
		if l.OtherProcessor != want || strings.Contains(l.String(), ", 1 on another processor") != (want == 1) {
			t.Errorf("%d blocks were freed on another processor, want %d: %v", l.OtherProcessor, want, l)
		}
	}
}

// TestShare: the share of blocks that live so long is right, whatever was observed of them: of some only that they live.
func TestShare(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const blocks, mean = 20_000, float64(time.Millisecond)
	var h, live histogram
	for range blocks {
		lives := time.Duration(r.ExpFloat64() * mean)
		if seen := time.Duration(r.Float64() * 4 * mean); seen < lives {
			live.add(timeClass(seen), blockUnit, 1)
		} else {
			h.add(timeClass(lives), blockUnit, 1)
		}
	}
	l := Lifetime{Ended: h.lived(), Live: live.lived()}
	if l.Live.Blocks < blocks/5 {
		t.Fatalf("%d are live: that shows little", l.Live.Blocks)
	}
	for d := 64 * time.Microsecond; d < 4*time.Millisecond; d *= 2 {
		want := 1 - math.Exp(-float64(d)/mean)
		if got := l.Share(d); math.Abs(got-want) > 0.02 {
			t.Errorf("%.3f live up to %v, want %.3f", got, d, want)
		}
		if got, ok := l.Quantile(want - 0.02); !ok || got > d || got < d/2 {
			t.Errorf("%.3f live up to %v, %t; want %v", want, got, ok, d)
		}
	}
	if l.Share(0) != 0 || l.Share(time.Hour) < 0.9 {
		t.Errorf("Share(0) = %v, Share(1h) = %v", l.Share(0), l.Share(time.Hour))
	}
	if got := (Lifetime{}).Share(time.Hour); !math.IsNaN(got) {
		t.Errorf("a share of nothing is %v", got)
	}
	if got, ok := (Lifetime{Live: live.lived()}).Quantile(0.01); ok {
		t.Errorf("where nothing has ended, a hundredth lives up to %v", got)
	}
	var one histogram
	one.add(10, 3*blockUnit, 3)
	l = Lifetime{Ended: one.lived()}
	if got, ok := l.Quantile(1); got != 1024*time.Microsecond || !ok || l.Share(got) != 1 || l.Share(got-1) != 0 {
		t.Errorf("three blocks of up to %v: all live up to %v, %t", longest(10), got, ok)
	}
}

// TestTimeClass: a class has what is longer than half of its longest.
func TestTimeClass(t *testing.T) {
	for class := range timeClasses {
		most := longest(class)
		for _, d := range []time.Duration{most, most/2 + 1} {
			if got := timeClass(d); got != class && class > 0 {
				t.Errorf("%v is in class %d, want %d", d, got, class)
			}
		}
	}
	for d, want := range map[time.Duration]int{-1: 0, 0: 0, 1: 0, time.Microsecond: 0, time.Microsecond + 1: 1, math.MaxInt64: timeClasses - 1} {
		if got := timeClass(d); got != want {
			t.Errorf("%v is in class %d, want %d", d, got, want)
		}
	}
}

// TestLifetimeText: the line, and the advice where it is right.
func TestLifetimeText(t *testing.T) {
	stack := []Frame{{"example.com/index.(*Index).query", "/src/index.go", 42}, {"main.run", "/src/main.go", 7}}
	frees := []FreedBy{{16384, []Frame{{"example.com/index.(*Index).query", "/src/index.go", 50}}}}
	short := Lifetime{
		Ended:   Lived{16384, 64 << 20, 0, []Times{{64 * time.Microsecond, 10000, 40 << 20}, {1024 * time.Microsecond, 6384, 24 << 20}}},
		FreedBy: frees, Stack: stack,
	}
	const line = "64 MiB in 16384 blocks have ended, 0 B in 0 blocks are live: index.(*Index).query (index.go:42), main.run (main.go:7); " +
		"half live up to 64µs, 99% up to 1.024ms; 16384 were freed by index.(*Index).query (index.go:50)"
	if got := short.String(); got != line {
		t.Errorf("String() = %s\nwant %s", got, line)
	}
	const advice = "99% live up to 1.024ms, and index.(*Index).query frees what it allocates: a blockalloc.Bump or Scoped gives all back at once"
	if got := short.Advice(); got != advice {
		t.Errorf("Advice() = %q, want %q", got, advice)
	}
	sampled := short
	if sampled.Ended.Error = 1 << 20; !strings.HasPrefix(sampled.String(), "64 MiB ± 1 MiB in 16384 blocks have ended, ") || sampled.Advice() != advice {
		t.Error(sampled, sampled.Advice())
	}
	for name, change := range map[string]func(*Lifetime){
		"few":       func(l *Lifetime) { l.Ended.Blocks, l.Ended.Times = 99, []Times{{time.Microsecond, 99, 99}} },
		"few seen":  func(l *Lifetime) { l.Ended.Error = 7 << 20 },
		"long":      func(l *Lifetime) { l.Ended.Times = []Times{{2048 * time.Microsecond, 16384, 64 << 20}} },
		"live":      func(l *Lifetime) { l.Live = Lived{1000, 1000, 0, []Times{{time.Hour, 1000, 1000}}} },
		"elsewhere": func(l *Lifetime) { l.Elsewhere = 1 },
		"others":    func(l *Lifetime) { l.FreedBy = []FreedBy{{16384, stack[1:]}} },
		"unknown":   func(l *Lifetime) { l.FreedBy = nil },
		"no stack":  func(l *Lifetime) { l.Stack = nil },
	} {
		l := short
		if change(&l); l.Advice() != "" {
			t.Errorf("%s: %s", name, l.Advice())
		}
	}
	text, err := json.Marshal(short)
	var back Lifetime
	if err == nil {
		err = json.Unmarshal(text, &back)
	}
	if err != nil || !reflect.DeepEqual(back, short) {
		t.Errorf("%s comes back as %+v, %v", text, back, err)
	}
}

// TestLifetimesOfSample: what has ended, and what is live, differ from the truth as their standard errors say.
func TestLifetimesOfSample(t *testing.T) {
	const trials, rate, size, n = 100, 4096, 1024, 400
	var ended, live float64
	for range trials {
		p := New(Options{Rate: rate, Lifetimes: true})
		mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(p))
		var blocks []blockalloc.Block
		for range 2 * n {
			blocks = append(blocks, placeA(t, mem, size))
		}
		for _, b := range blocks[n:] {
			giveBack(t, mem, b)
		}
		l := p.Lifetimes()[0]
		ended += square(l.Ended.Bytes, n*size, l.Ended.Error)
		live += square(l.Live.Bytes, n*size, l.Live.Error)
	}
	checkSquares(t, "what has ended", ended, trials)
	checkSquares(t, "what is live", live, trials)
}

// square is that of a difference in standard errors.
func square(got, want, standardError int64) float64 {
	z := float64(got-want) / float64(standardError)
	return z * z
}

// checkSquares fails for a sum of squares that a right standard error has once in a million times: it is the number of trials on
// average, and its standard deviation is the root of twice that.
func checkSquares(t *testing.T, of string, sum float64, trials int) {
	t.Helper()
	if deviation := math.Sqrt(2 * float64(trials)); math.Abs(sum-float64(trials)) > 6*deviation {
		t.Errorf("the squares of %d differences of %s, in standard errors, add up to %.0f", trials, of, sum)
	}
}

// TestLifetimesOff: nothing is known, and nothing taken, unless the option says so.
func TestLifetimesOff(t *testing.T) {
	var usage [2]int64
	for i, on := range []bool{false, true} {
		p := New(Options{Rate: 1, Lifetimes: on})
		mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(p))
		giveBack(t, mem, placeA(t, mem, 100))
		if got := p.Lifetimes(); (len(got) == 1) != on {
			t.Errorf("Lifetimes: %t: %v", on, got)
		}
		usage[i] = p.Usage().Bytes
	}
	if took := usage[1] - usage[0]; took < int64(unsafe.Sizeof(endings{})) || took > 2*int64(unsafe.Sizeof(endings{})) {
		t.Errorf("the endings of a site take %d bytes, of which there are %d", took, unsafe.Sizeof(endings{}))
	}
}

// TestLifetimesStorm: while goroutines allocate, free, fail to free and ask, no ending is lost or counted twice.
func TestLifetimesStorm(t *testing.T) {
	for _, rate := range []int{1, 1000} {
		p := New(Options{Rate: rate, Lifetimes: true})
		inner := new(stubbornly)
		mem := alloctrace.Wrap(inner, alloctrace.WithHooks(p))
		var workers sync.WaitGroup
		handed := make(chan blockalloc.Block, 16)
		for w := range 4 {
			workers.Go(func() {
				r := rand.New(rand.NewPCG(3, uint64(w)))
				for i := range 2000 {
					b := placeA(t, mem, 1+uintptr(r.UintN(5000)))
					if r.IntN(4) == 0 {
						select {
						case handed <- b:
							continue
						case other := <-handed:
							b, other = other, b
							for mem.Free(other) != nil {
							}
						default:
						}
					}
					for mem.Free(b) != nil {
					}
					if i%500 == 0 {
						p.Lifetimes()
					}
				}
			})
		}
		workers.Wait()
		var live int64
		for range len(handed) {
			live += int64((<-handed).Size())
		}
		var sampled, sampledLive, ended, alive int64
		for _, s := range p.Samples() {
			sampled, sampledLive = sampled+s.AllocatedBytes, sampledLive+s.LiveBytes
		}
		for _, l := range p.Lifetimes() {
			ended, alive = ended+l.Ended.Bytes, alive+l.Live.Bytes
		}
		if ended != sampled-sampledLive || alive != sampledLive || rate == 1 && alive != live || inner.failed.Load() == 0 {
			t.Errorf("rate %d: %d bytes ended and %d live, want %d and %d (%d), after %d failures", rate, ended, alive, sampled-sampledLive, sampledLive, live, inner.failed.Load())
		}
	}
}

// stubbornly fails each tenth free.
type stubbornly struct {
	blockalloc.Heap
	calls, failed atomic.Int64
}

func (s *stubbornly) Free(b blockalloc.Block) error {
	if s.calls.Add(1)%10 == 0 {
		s.failed.Add(1)
		return errors.New("not today")
	}
	return s.Heap.Free(b)
}

// TestAdviceOfFew: of a place half of whose blocks live long nobody is told that all are short-lived, because those few were that were sampled.
func TestAdviceOfFew(t *testing.T) {
	for range 100 {
		p := New(Options{Rate: 64 << 10, Lifetimes: true})
		mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(p))
		var last []blockalloc.Block
		for i := range 3000 {
			b := placeA(t, mem, 64)
			if i%2 == 0 {
				last = append(last, b)
			} else if err := mem.Free(b); err != nil {
				t.Fatal(err)
			}
		}
		for _, l := range p.Lifetimes() {
			l.Stack = l.Stack[1:] // as if it were this function, without the helper, that allocates
			if advice := l.Advice(); advice != "" && len(l.Live.Times) == 0 {
				t.Fatalf("%v: %s", l, advice)
			}
		}
		for _, b := range last {
			if err := mem.Free(b); err != nil {
				t.Fatal(err)
			}
		}
	}
}
