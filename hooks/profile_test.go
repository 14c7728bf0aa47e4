package hooks

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
func place(s ProfileSample) string {
	f := callers.Frames(s.Stack)
	if len(f) == 0 {
		return "nowhere"
	}
	return f[0].Function[strings.LastIndexByte(f[0].Function, '.')+1:]
}

// sums returns what a profile says, by a key of its samples.
func sums(p *Profile, key func(ProfileSample) string) map[string][4]int64 {
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

// TestProfileOfAll: with rate 1 every number is exact, by place and by labels.
func TestProfileOfAll(t *testing.T) {
	p := NewProfile(1)
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
	byLabels := func(s ProfileSample) string { return fmt.Sprint(s.Labels) }
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
	if got := p.Stats(); got.Sampled != 4 || got.Live != 1 || got.Untracked != 0 || got.Places != 4 || got.Stacks != 4 {
		t.Errorf("%+v", got)
	}
	if err := mem.Free(b); err != nil {
		t.Fatal(err)
	}
}

// TestProfileIsUnbiased: what is sampled of blocks of any size stands for all of them on
// average, whatever the rate is meanwhile.
func TestProfileIsUnbiased(t *testing.T) {
	sizes := []uintptr{16, 96, 1000, 4096, 65_536, 1 << 20}
	blocks := func(size uintptr) int { return max(40, 32<<16/int(size)) }
	errors := make(map[uintptr][4]float64) // sums of relative errors
	const runs = 40
	for range runs {
		for i, size := range sizes {
			p := NewProfile(1 << 16)
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
			sum := sums(p, func(ProfileSample) string { return "" })[""]
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

// TestProfileSorts: what has the most in use comes first, and then what has allocated the
// most; and half a block is rounded up.
func TestProfileSorts(t *testing.T) {
	p := NewProfile(1)
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

// TestProfileRates: nothing is sampled at 0, all at 1, and what cannot be panics.
func TestProfileRates(t *testing.T) {
	p := NewProfile(0)
	tell := func(kind alloctrace.Kind, n int) {
		for i := range n {
			p.Observe(t.Context(), alloctrace.Event{Kind: kind, Addr: uintptr(i+1) << 8, Size: 100, Align: 4}, nil)
		}
	}
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
	if p.SetRate(DefaultProfileRate); p.Rate() != 512<<10 {
		t.Errorf("the rate is %d", p.Rate())
	}
	defer func() {
		if text := fmt.Sprint(recover()); !strings.HasPrefix(text, "hooks: Profile.SetRate(-1): ") {
			t.Errorf("of rate -1: %q", text)
		}
	}()
	NewProfile(-1)
}

// TestProfileModel: goroutines allocate, reallocate and free each other's blocks, and in the end the
// profile has what is live, to the byte.
func TestProfileModel(t *testing.T) {
	steps := 10_000
	if testing.Short() {
		steps = 1_000
	}
	p := NewProfile(1)
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(p))
	blocks := make(chan blockalloc.Block, 4*64)
	var wg sync.WaitGroup
	for w := range uint64(4) {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(w, 3))
			labelled := mem.WithContext(pprof.WithLabels(t.Context(), pprof.Labels("worker", fmt.Sprint(w))))
			for range steps {
				b := placeA(t, labelled, 1+uintptr(rnd.IntN(500)))
				if rnd.IntN(3) == 0 {
					var err error
					if b, err = mem.Reallocate(b, 1+uintptr(rnd.IntN(500))); err != nil {
						t.Error(err)
					}
				}
				select {
				case blocks <- b:
					continue
				default:
				}
				for _, b := range []blockalloc.Block{b, <-blocks} {
					if err := mem.Free(b); err != nil {
						t.Error(err)
					}
				}
				if rnd.IntN(steps/10) == 0 {
					for _, s := range p.Samples() {
						if s.LiveBytes < 0 || s.LiveBlocks < 0 {
							t.Errorf("of a place %d bytes in %d blocks are live", s.LiveBytes, s.LiveBlocks)
						}
					}
				}
			}
		})
	}
	wg.Wait()
	close(blocks)
	var sum [4]int64
	for _, s := range sums(p, func(ProfileSample) string { return "" }) {
		sum = s
	}
	stats := mem.Stats()
	if want := [4]int64{int64(stats.Allocations + stats.Reallocations), int64(stats.AllocatedBytes), stats.LiveBlocks, stats.LiveBytes}; sum != want {
		t.Errorf("the profile has %d, want %d", sum, want)
	}
	for b := range blocks {
		if err := mem.Free(b); err != nil {
			t.Error(err)
		}
	}
	if got := p.Stats(); got.Live != 0 {
		t.Errorf("at the end %+v", got)
	}
}

// TestProfileIsBounded: a million live blocks that are all sampled, and places and stacks
// without number.
func TestProfileIsBounded(t *testing.T) {
	const n = 1_000_000
	p := NewProfile(1)
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
	if took := after.HeapAlloc - before.HeapAlloc; took > maxProfiled*150+(100<<10) {
		t.Errorf("%d live blocks take %d bytes", n, took)
	}
	if got := p.Stats(); got.Sampled != n || got.Live != maxProfiled || got.Untracked != n-maxProfiled {
		t.Errorf("%+v", got)
	}
	if s := p.Samples(); len(s) != 1 || s[0].AllocatedBlocks != n || s[0].LiveBlocks != maxProfiled {
		t.Errorf("%+v", s)
	}
	tell(alloctrace.Freeing)
	if s := p.Samples(); p.Stats().Live != 0 || s[0].LiveBytes != 0 || s[0].AllocatedBytes != 16*n {
		t.Errorf("freed: %+v, %+v", p.Stats(), s)
	}

	labelled := func(i int) context.Context {
		return pprof.WithLabels(t.Context(), pprof.Labels("request", fmt.Sprint(i)))
	}
	for i := range maxStacks + 10 {
		p.Observe(labelled(i), alloctrace.Event{Kind: alloctrace.Allocated, Addr: 1<<28 | uintptr(i)<<4, Size: 16, Align: 16}, nil)
	}
	if got := p.Stats(); got.Places > maxStacks+got.Stacks {
		t.Errorf("with labels of each request %+v", got)
	}
	p.stacks.kept.Store(maxStacks)
	p.Observe(t.Context(), alloctrace.Event{Kind: alloctrace.Allocated, Addr: 1 << 29, Size: 16, Align: 16}, nil)
	if !slices.ContainsFunc(p.Samples(), func(s ProfileSample) bool { return len(s.Stack) == 0 && s.LiveBytes == 16 }) {
		t.Error("a stack too many is not put with the others")
	}
}

// TestProfileAllocatesNothing: blocks that are sampled cost nothing on the Go heap once
// their places are known.
func TestProfileAllocatesNothing(t *testing.T) {
	p := NewProfile(1)
	ctx := pprof.WithLabels(t.Context(), pprof.Labels("job", "merge"))
	if n := testing.AllocsPerRun(1000, func() {
		p.Observe(ctx, alloctrace.Event{Kind: alloctrace.Allocated, Addr: 4096, Size: 64, Align: 64}, nil)
		p.Observe(ctx, alloctrace.Event{Kind: alloctrace.Freeing, Addr: 4096, Size: 64, Align: 64}, nil)
	}); n != 0 {
		t.Errorf("%v allocations a pair", n)
	}
}
