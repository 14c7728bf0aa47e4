package heapprofile

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/internal/callers"
)

// placeA and placeB are what a profile must tell apart.
//
//go:noinline
func placeA(t testing.TB, a blockalloc.Allocator, size uintptr) blockalloc.Block {
	b, err := a.Allocate(blockalloc.Layout{Size: size, Align: 8})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

//go:noinline
func placeB(t testing.TB, a blockalloc.Allocator, size uintptr) blockalloc.Block {
	return placeA(t, a, size)
}

// place returns the innermost function of a sample.
func place(s Sample) string {
	f := callers.Frames(s.Stack)
	if len(f) == 0 {
		return "nowhere"
	}
	return f[0].Function[strings.LastIndexByte(f[0].Function, '.')+1:]
}

// sums returns what a profile says, by a key of its samples.
func sums(p *Profile, key func(Sample) string) map[string][4]int64 {
	all := make(map[string][4]int64)
	for _, s := range p.Samples() {
		sum := all[key(s)]
		for i, n := range []int64{s.AllocatedBlocks, s.AllocatedBytes, s.LiveBlocks, s.LiveBytes} {
			sum[i] += n
		}
		all[key(s)] = sum
	}
	return all
}

// stubborn is an allocator whose frees and reallocations fail while err is set.
type stubborn struct {
	blockalloc.Heap
	err error
}

func (s *stubborn) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	if s.err != nil {
		return b, s.err
	}
	return s.Heap.Reallocate(b, size)
}

func (s *stubborn) Free(b blockalloc.Block) error {
	if s.err != nil {
		return s.err
	}
	return s.Heap.Free(b)
}

// TestSamples: with rate 1 every number is exact, by place and by labels.
func TestSamples(t *testing.T) {
	p := New(Options{Rate: 1})
	inner := new(stubborn)
	mem := alloctrace.Wrap(inner, alloctrace.WithHooks(p))
	ctx := pprof.WithLabels(t.Context(), pprof.Labels("job", "merge", "shard", "7"))
	a := placeA(t, mem, 100)
	b := placeB(t, mem.WithContext(ctx), 1000)
	c := placeB(t, mem.Child("index"), 64)
	for range 2 { // failures are taken back, again and again
		inner.err = errors.New("not today")
		if mem.Free(a) == nil {
			t.Fatal("the free has not failed")
		}
		if _, err := mem.Reallocate(b, 2000); err == nil {
			t.Fatal("the reallocation has not failed")
		}
		inner.err = nil
	}
	byLabels := func(s Sample) string { return fmt.Sprint(s.Labels) }
	want := map[string][4]int64{
		"[]":                      {1, 100, 1, 100},
		"[{job merge} {shard 7}]": {1, 1000, 1, 1000},
		"[{allocator index}]":     {1, 64, 1, 64},
	}
	if got := sums(p, byLabels); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("allocated: %v, want %v", got, want)
	}
	b, err := mem.Reallocate(b, 3000)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(mem.Free(a), mem.Free(c)); err != nil {
		t.Fatal(err)
	}
	if err := mem.Free(c); err == nil {
		t.Fatal("a block was freed twice")
	}
	want = map[string][4]int64{
		"[]":                      {2, 3100, 1, 3000},
		"[{job merge} {shard 7}]": {1, 1000, 0, 0},
		"[{allocator index}]":     {1, 64, 0, 0},
	}
	if got := sums(p, byLabels); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("freed: %v, want %v", got, want)
	}
	for _, s := range p.Samples() {
		if f := callers.Frames(s.Stack); s.AllocatedBytes == 1000 && (len(f) != 3 || place(s) != "placeA" || !strings.HasSuffix(f[1].Function, ".placeB")) {
			t.Errorf("the stack is %v", f)
		}
	}
	if got := p.Stats(); got.Sampled != 4 || got.Live != 1 || got.Untracked != 0 || got.Sites != 4 || got.Stacks != 5 || got.ForeignFrees != 1 { // the child's block was freed through its parent, by a stack of its own
		t.Errorf("%+v", got)
	}
	if err := mem.Free(b); err != nil {
		t.Fatal(err)
	}
}

// TestSamplesAreUnbiased: what is sampled of blocks of any size stands for all of them on
// average, whatever the rate is meanwhile.
func TestSamplesAreUnbiased(t *testing.T) {
	sizes := []uintptr{16, 96, 1000, 4096, 65_536, 1 << 20}
	blocks := func(size uintptr) int { return max(40, 32<<16/int(size)) }
	errors := make(map[uintptr][4]float64) // sums of relative errors
	const runs = 40
	for range runs {
		for i, size := range sizes {
			p := New(Options{Rate: 1 << 16})
			n := blocks(size)
			for j := range n {
				if j == n/2 {
					p.SetRate(1 << 15)
				}
				e := alloctrace.Event{Kind: alloctrace.Allocated, Addr: uintptr(i+1)<<28 | uintptr(j)<<8, Size: size, Align: 8}
				p.Observe(t.Context(), e, nil)
				if j%2 == 0 {
					e.Kind = alloctrace.Freeing
					p.Observe(t.Context(), e, nil)
				}
			}
			sum := sums(p, func(Sample) string { return "" })[""]
			of := errors[size]
			for j, want := range []int{n, n * int(size), n / 2, n / 2 * int(size)} {
				of[j] += float64(sum[j])/float64(want) - 1
			}
			errors[size] = of
		}
	}
	for size, sums := range errors {
		chosen := -math.Expm1(-float64(size) / (1 << 16))
		deviation := math.Sqrt((1 - chosen) / chosen / float64(blocks(size)/2) / runs) // of live blocks, all of them at the larger rate: the most
		for _, sum := range sums {
			if mean := sum / runs; math.Abs(mean) > 5*deviation+0.001 {
				t.Errorf("size %d: on average wrong by %.4f, and by chance by %.4f", size, mean, deviation)
			}
		}
	}
}

// TestSamplesAreSorted: what has the most in use comes first, and then what has allocated the
// most; and half a block is rounded up.
func TestSamplesAreSorted(t *testing.T) {
	p := New(Options{Rate: 1})
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(p))
	for i, size := range []uintptr{300, 500, 100, 400, 200} {
		b := placeA(t, mem.WithContext(pprof.WithLabels(t.Context(), pprof.Labels("i", fmt.Sprint(i)))), size)
		if i%2 == 0 {
			if err := mem.Free(b); err != nil {
				t.Fatal(err)
			}
		}
	}
	var got []int64
	for _, s := range p.Samples() {
		got = append(got, s.AllocatedBytes)
	}
	if want := []int64{500, 400, 300, 200, 100}; !slices.Equal(got, want) {
		t.Errorf("in the order %d, want %d", got, want)
	}
	for units, want := range map[int64]int64{0: 0, blockUnit/2 - 1: 0, blockUnit / 2: 1, 3 * blockUnit / 2: 2} {
		if got := rounded(units); got != want {
			t.Errorf("%d units are %d blocks, want %d", units, got, want)
		}
	}
}

// TestRates: the default, nothing is sampled at 0, all at 1, and what cannot be panics.
func TestRates(t *testing.T) {
	p := New(Options{})
	if p.Rate() != 512<<10 {
		t.Errorf("the rate is %d", p.Rate())
	}
	tell := func(kind alloctrace.Kind, n int) {
		for i := range n {
			p.Observe(t.Context(), alloctrace.Event{Kind: kind, Addr: uintptr(i+1) << 8, Size: 100, Align: 4}, nil)
		}
	}
	p.SetRate(0)
	tell(alloctrace.Allocated, 100)
	if got := p.Stats(); got.Sampled != 0 || p.Rate() != 0 {
		t.Errorf("at rate %d: %+v", p.Rate(), got)
	}
	p.SetRate(1)
	tell(alloctrace.Allocated, 100)
	p.SetRate(0)
	tell(alloctrace.Freeing, 50)
	if got := p.Stats(); got.Sampled != 100 || got.Live != 50 {
		t.Errorf("sampled, switched off and half of it freed: %+v", got)
	}
	for _, o := range []Options{{Rate: -1}, {MaxBlocks: -1}} {
		func() {
			defer func() {
				if text := fmt.Sprint(recover()); !strings.HasPrefix(text, "heapprofile: New with rate ") {
					t.Errorf("of %+v: %q", o, text)
				}
			}()
			New(o)
		}()
	}
}

// TestModel has goroutines allocate, reallocate and free, and hand blocks to each
// other, while reports are made: at the end it knows what they hold, and nothing else.
func TestModel(t *testing.T) {
	steps := 20_000
	if testing.Short() {
		steps = 2_000
	}
	l := New(Options{Rate: 1})
	p := observed(l, new(blockalloc.Heap))
	ctx := func(w uint64) context.Context {
		return pprof.WithLabels(t.Context(), pprof.Labels("worker", fmt.Sprint(w)))
	}
	var mu sync.Mutex
	var shared []blockalloc.Block
	var wg sync.WaitGroup
	for w := range uint64(4) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(w, 11))
			labelled := p.WithContext(ctx(w))
			for range steps {
				mu.Lock()
				var b blockalloc.Block
				if n := len(shared); n > 0 && rnd.IntN(100) < 30+n/10 {
					i := rnd.IntN(n)
					b = shared[i]
					shared[i] = shared[n-1]
					shared = shared[:n-1]
				}
				mu.Unlock()
				var err error
				switch {
				case b.IsZero():
					b, err = labelled.Allocate(blockalloc.Layout{Size: 1 + uintptr(rnd.IntN(500)), Align: 8})
				case rnd.IntN(3) == 0:
					b, err = p.Reallocate(b, 1+uintptr(rnd.IntN(500)))
				default:
					err = p.Free(b)
					b = blockalloc.Block{}
				}
				if err != nil {
					t.Error(err)
					return
				}
				if !b.IsZero() {
					mu.Lock()
					shared = append(shared, b)
					mu.Unlock()
				}
				if rnd.IntN(steps/10) == 0 {
					l.Report()
					for _, s := range l.Samples() {
						if s.LiveBytes < 0 || s.LiveBlocks < 0 {
							t.Errorf("of a site %d bytes in %d blocks are live", s.LiveBytes, s.LiveBlocks)
						}
					}
				}
			}
		})
	}
	wg.Wait()
	want := make(map[uintptr]uintptr)
	for _, b := range shared {
		want[b.Addr()] = b.Size()
	}
	live := l.Blocks()
	for _, b := range live {
		if want[b.Addr] != b.Size {
			t.Errorf("%+v is no live block", b)
		}
	}
	var bytes int64
	for _, b := range shared {
		bytes += int64(b.Size())
	}
	if r := l.Report(); len(live) != len(want) || len(want) < 10 || r.Blocks != int64(len(want)) || r.Bytes != bytes {
		t.Errorf("%d blocks are live, and reported are %d of %d bytes; want %d of %d", len(live), r.Blocks, r.Bytes, len(want), bytes)
	}
	var sum [4]int64
	for _, s := range sums(l, func(Sample) string { return "" }) {
		sum = s
	}
	stats := p.Stats()
	if want := [4]int64{int64(stats.Allocations + stats.Reallocations), int64(stats.AllocatedBytes), stats.LiveBlocks, stats.LiveBytes}; sum != want {
		t.Errorf("the samples have %d, want %d", sum, want)
	}
	for _, b := range shared {
		if err := p.Free(b); err != nil {
			t.Error(err)
		}
	}
	if got := l.Stats(); got.Live != 0 || got.ForeignFrees != 0 {
		t.Errorf("at the end %+v", got)
	}
	wantNoneInFilter(t, l)
}

// TestBounds: a million live blocks that are all sampled, and places and stacks
// without number.
func TestBounds(t *testing.T) {
	const n = 1_000_000
	p := New(Options{})
	p.SetRate(1)
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	tell := func(kind alloctrace.Kind) {
		for i := range n {
			p.Observe(context.Background(), alloctrace.Event{Kind: kind, Addr: uintptr(i+1) << 4, Size: 16, Align: 16}, nil)
		}
	}
	tell(alloctrace.Allocated)
	runtime.GC()
	runtime.ReadMemStats(&after)
	if took := after.HeapAlloc - before.HeapAlloc; took > defaultMaxBlocks*150+(100<<10) {
		t.Errorf("%d live blocks take %d bytes", n, took)
	}
	if got := p.Stats(); got.Sampled != n || got.Live != defaultMaxBlocks || got.Untracked != n-defaultMaxBlocks {
		t.Errorf("%+v", got)
	}
	if s := p.Samples(); len(s) != 1 || s[0].AllocatedBlocks != n || s[0].LiveBlocks != defaultMaxBlocks {
		t.Errorf("%+v", s)
	}
	if p := New(Options{Rate: 1, MaxBlocks: 10}); p.maxBlocks != 10 {
		t.Errorf("MaxBlocks is %d, want 10", p.maxBlocks)
	}
	if p := New(Options{Rate: 1}); p.maxBlocks < 1<<62 {
		t.Errorf("with rate 1 MaxBlocks is %d, want no bound", p.maxBlocks)
	}
	tell(alloctrace.Freeing)
	if s := p.Samples(); p.Stats().Live != 0 || s[0].LiveBytes != 0 || s[0].AllocatedBytes != 16*n {
		t.Errorf("freed: %+v, %+v", p.Stats(), s)
	}

	labelled := func(i int) context.Context {
		return pprof.WithLabels(t.Context(), pprof.Labels("request", fmt.Sprint(i)))
	}
	for i := range maxSites + 10 {
		p.Observe(labelled(i), alloctrace.Event{Kind: alloctrace.Allocated, Addr: 1<<28 | uintptr(i)<<4, Size: 16, Align: 16}, nil)
	}
	if got := p.Stats(); got.Sites > maxSites+got.Stacks {
		t.Errorf("with labels of each request %+v", got)
	}
	if l := p.Samples(); !slices.ContainsFunc(l, func(s Sample) bool { return len(s.Labels) == 0 && s.LiveBlocks >= 10 }) {
		t.Error("the labels of sites too many are not left out")
	}
	p.stacks = newStackTable(callers.Skip{}, 0)
	p.Observe(t.Context(), alloctrace.Event{Kind: alloctrace.Allocated, Addr: 1 << 29, Size: 16, Align: 16}, nil)
	if !slices.ContainsFunc(p.Samples(), func(s Sample) bool { return len(s.Stack) == 0 && s.LiveBytes == 16 }) {
		t.Error("a stack too many is not put with the others")
	}
}

// TestAllocatesNothing: blocks that are sampled cost nothing on the Go heap once their sites are
// known, also in a Meter, which times some of them.
func TestAllocatesNothing(t *testing.T) {
	p := New(Options{Rate: 1, Owner: func(context.Context) string { return "merge" }})
	ctx := pprof.WithLabels(t.Context(), pprof.Labels("job", "merge"))
	part := p.Attach(&alloctrace.Attachment{ID: 1, Child: "index"}).(*part)
	for name, h := range map[string]alloctrace.Hook{"direct": p, "part": part, "Meter": hooks.NewMeter(part)} {
		if n := testing.AllocsPerRun(30, func() {
			for range 2000 {
				h.Observe(ctx, alloctrace.Event{Kind: alloctrace.Allocated, Addr: 4096, Size: 64, Align: 64}, nil)
				h.Observe(ctx, alloctrace.Event{Kind: alloctrace.Freeing, Addr: 4096, Size: 64, Align: 64}, nil)
				part.released(4096, 64)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
