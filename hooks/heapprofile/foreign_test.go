package heapprofile

import (
	"encoding/json"
	"errors"
	"math/rand/v2"
	"path"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/goroutine"
)

//go:noinline
func freeHere(t *testing.T, a blockalloc.Allocator, b blockalloc.Block) {
	t.Helper()
	if err := a.Free(b); err != nil {
		t.Fatal(err)
	}
}

// family is a Proxy with a name and two children, and another Proxy around the same allocator.
type family struct {
	p              *Profile
	inner          blockalloc.Allocator
	a, x, y, other *alloctrace.Proxy
}

func newFamily(o Options, inner blockalloc.Allocator) family {
	p := New(o)
	a := alloctrace.Wrap(inner, alloctrace.WithName("a"), alloctrace.WithHooks(p))
	return family{p, inner, a, a.Child("x"), a.Child("y"), alloctrace.Wrap(inner, alloctrace.WithHooks(p))}
}

// TestForeignFrees: who allocated and who has freed, by name, child and stack, of Free and Reallocate.
func TestForeignFrees(t *testing.T) {
	type call struct{ proxy, child string }
	f := newFamily(Options{Rate: 1}, new(blockalloc.Heap))
	nobody := (*call)(nil)
	for name, c := range map[string]struct {
		allocate, free blockalloc.Allocator
		by             *call
		through        call
	}{
		"parent":           {f.x, f.a, &call{"a", "x"}, call{"a", ""}},
		"child":            {f.a, f.x, &call{"a", ""}, call{"a", "x"}},
		"sibling":          {f.x, f.y, &call{"a", "x"}, call{"a", "y"}},
		"grandchild":       {f.x.Child("z"), f.x, &call{"a", "z"}, call{"a", "x"}},
		"child of a name":  {f.a.Child("x"), f.x, &call{"a", "x"}, call{"a", "x"}},
		"another Proxy":    {f.x, f.other, &call{"a", "x"}, call{"", ""}},
		"of another Proxy": {f.other, f.x, &call{"", ""}, call{"a", "x"}},
		"views":            {f.x.WithContext(t.Context()), f.a.WithContext(t.Context()), &call{"a", "x"}, call{"a", ""}},
		"nobody":           {f.inner, f.x, nobody, call{"a", "x"}},
	} {
		for _, op := range []string{"Free", "Reallocate", "Reallocate to nothing"} {
			before := f.p.Stats().ForeignFrees
			b := placeA(t, c.allocate, 100)
			switch op {
			case "Free":
				freeHere(t, c.free, b)
			case "Reallocate":
				n, err := c.free.Reallocate(b, 200)
				if err != nil {
					t.Fatal(err)
				}
				freeHere(t, c.free, n) // which is its own
			default:
				if _, err := c.free.Reallocate(b, 0); err != nil {
					t.Fatal(err)
				}
			}
			list := f.p.ForeignFrees()
			if n := f.p.Stats().ForeignFrees - before; n != 1 {
				t.Errorf("%s, %s: %d foreign frees, want 1: %v", name, op, n, list)
				continue
			}
			got := list[len(list)-1]
			if got.Addr != b.Addr() || got.Size != 100 || got.Freed.Proxy != c.through.proxy || got.Freed.Child != c.through.child || !strings.HasPrefix(path.Base(got.Freed.Stack[0].File), "foreign_test.go") {
				t.Errorf("%s, %s: %+v", name, op, got)
			}
			switch {
			case c.by == nobody:
				if got.Allocated != nil || !strings.Contains(got.String(), ": allocated through no Proxy that is observed; freed through Proxy \"a\", child \"x\", by heapprofile.") {
					t.Errorf("%s, %s: %v", name, op, got)
				}
			case got.Allocated == nil || got.Allocated.Proxy != c.by.proxy || got.Allocated.Child != c.by.child || path.Base(got.Allocated.Stack[0].Function) != "heapprofile.placeA":
				t.Errorf("%s, %s: %+v", name, op, got)
			}
		}
	}
	if n := f.p.Stats().Live; n != 0 {
		t.Errorf("%d blocks are live at the end", n)
	}
	wantNoneInFilter(t, f.p)
}

// TestNoForeignFrees: what is no foreign free, or cannot be known to be one, is not reported as one.
func TestNoForeignFrees(t *testing.T) {
	refusal := errors.New("not today")
	wantErr := func(t *testing.T, err error) {
		t.Helper()
		if err == nil {
			t.Fatal("the release has not failed")
		}
	}
	for name, c := range map[string]struct {
		options Options
		do      func(t *testing.T, f family)
	}{
		"views": {Options{Rate: 1}, func(t *testing.T, f family) {
			freeHere(t, f.x, placeA(t, f.x.WithContext(t.Context()), 64))
			freeHere(t, f.x.WithContext(t.Context()), placeA(t, f.x, 64))
		}},
		"a sampled block": {Options{}, func(t *testing.T, f family) { freeHere(t, f.other, placeA(t, f.a, 8<<20)) }},
		"another rate before": {Options{Rate: 2}, func(t *testing.T, f family) {
			f.p.SetRate(1)
			freeHere(t, f.other, placeA(t, f.a, 64))
			freeHere(t, f.other, placeA(t, f.inner, 64))
		}},
		"another rate since": {Options{Rate: 1}, func(t *testing.T, f family) {
			b := placeA(t, f.a, 64)
			f.p.SetRate(2)
			freeHere(t, f.other, b)
			f.p.SetRate(1)
			freeHere(t, f.other, placeA(t, f.a, 64))
			freeHere(t, f.other, placeA(t, f.inner, 64))
		}},
		"too many blocks": {Options{Rate: 1, MaxBlocks: 1}, func(t *testing.T, f family) {
			one, two := placeA(t, f.a, 64), placeA(t, f.a, 64)
			freeHere(t, f.other, two)
			freeHere(t, f.other, one)
		}},
		"refused": {Options{Rate: 1}, func(t *testing.T, f family) {
			for _, b := range []blockalloc.Block{placeA(t, f.a, 64), placeA(t, f.inner, 64)} {
				f.inner.(*stubborn).err = refusal
				wantErr(t, f.other.Free(b))
				_, err := f.other.Reallocate(b, 128)
				wantErr(t, err)
				f.inner.(*stubborn).err = nil
			}
			freeHere(t, f.a, placeA(t, f.a, 64))
		}},
		"freed twice": {Options{Rate: 1}, func(t *testing.T, f family) {
			b := placeA(t, f.a, 64)
			freeHere(t, f.a, b)
			wantErr(t, f.a.Free(b))
			wantErr(t, f.x.Free(b))
			wantErr(t, f.other.Free(b))
		}},
		"closed": {Options{Rate: 1}, func(t *testing.T, f family) {
			b := placeA(t, f.a, 64)
			_ = f.other.Close()
			_, err := f.other.Reallocate(b, 128)
			wantErr(t, err)
			freeHere(t, f.a, b)
		}},
		"a quiet view": {Options{Rate: 1}, func(t *testing.T, f family) {
			freeHere(t, f.a, placeA(t, f.a.Quiet(), 64))
			b := placeA(t, f.a, 64)
			freeHere(t, f.a.Quiet(), b)
			same := newAgain(t)
			one, two := alloctrace.Wrap(same, alloctrace.WithHooks(f.p)), alloctrace.Wrap(same, alloctrace.WithHooks(f.p))
			freeHere(t, one.Quiet(), placeA(t, one, 64)) // which one's hook does not know to be free
			freeHere(t, two, placeA(t, same, 64))
		}},
		"below a quiet view": {Options{Rate: 1}, func(t *testing.T, f family) {
			upper := alloctrace.Wrap(blockalloc.NewLimit(f.a, 1<<20), alloctrace.WithHooks(f.p))
			freeHere(t, upper, placeA(t, upper.Quiet(), 64))
		}},
		"the hook twice": {Options{Rate: 1}, func(t *testing.T, f family) {
			twice := alloctrace.Wrap(f.inner, alloctrace.WithHooks(f.p, f.p)).Child("x", alloctrace.WithHooks(f.p))
			b := placeA(t, twice, 64)
			f.inner.(*stubborn).err = refusal
			wantErr(t, twice.Free(b))
			f.inner.(*stubborn).err = nil
			freeHere(t, twice, b)
		}},
		"stacked": {Options{Rate: 1}, func(t *testing.T, f family) {
			upper := alloctrace.Wrap(alloctrace.Wrap(f.x, alloctrace.WithHooks(f.p)), alloctrace.WithHooks(f.p))
			b, err := upper.Reallocate(placeA(t, upper, 64), 64)
			if err != nil {
				t.Fatal(err)
			}
			f.inner.(*stubborn).err = refusal
			wantErr(t, upper.Free(b))
			f.inner.(*stubborn).err = nil
			freeHere(t, upper, b)
		}},
		"no Proxy": {Options{Rate: 1}, func(t *testing.T, f family) {
			e := alloctrace.Event{Kind: alloctrace.Allocated, Addr: 4096, Size: 64, Align: 64}
			f.p.Observe(t.Context(), e, nil)
			e.Kind = alloctrace.Freeing
			f.p.Observe(t.Context(), e, nil)
			e.Addr = 8192
			f.p.Observe(t.Context(), e, nil)
		}},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFamily(c.options, new(stubborn))
			c.do(t, f)
			if list := f.p.ForeignFrees(); len(list) != 0 || f.p.Stats().ForeignFrees != 0 {
				t.Errorf("foreign frees are %v", list)
			}
		})
	}
}

// TestForeignFreesStacked: with a Profile around several levels, one mistake is one foreign free.
func TestForeignFreesStacked(t *testing.T) {
	for name, c := range map[string]struct {
		do          func(t *testing.T, heap blockalloc.Allocator, lower, one, two *alloctrace.Proxy)
		by, through string
	}{
		"another upper one": {func(t *testing.T, _ blockalloc.Allocator, _, one, two *alloctrace.Proxy) {
			freeHere(t, two, placeA(t, one, 64))
		}, "one", "two"},
		"the lower one's": {func(t *testing.T, _ blockalloc.Allocator, lower, one, _ *alloctrace.Proxy) {
			freeHere(t, one, placeA(t, lower, 64))
		}, "lower", "one"},
		"nobody's": {func(t *testing.T, heap blockalloc.Allocator, _, one, _ *alloctrace.Proxy) {
			freeHere(t, one, placeA(t, heap, 64))
		}, "", "one"},
	} {
		p := New(Options{Rate: 1})
		wrap := func(name string, a blockalloc.Allocator) *alloctrace.Proxy {
			return alloctrace.Wrap(a, alloctrace.WithName(name), alloctrace.WithHooks(p))
		}
		heap := new(blockalloc.Heap)
		lower := wrap("lower", heap)
		c.do(t, heap, lower, wrap("one", lower), wrap("two", lower))
		list := p.ForeignFrees()
		if len(list) != 1 || list[0].Freed.Proxy != c.through || (list[0].Allocated == nil) != (c.by == "") || c.by != "" && list[0].Allocated.Proxy != c.by {
			t.Errorf("%s: foreign frees are %v", name, list)
		}
		if p.Stats().Live != 0 || p.live.pending() != 0 {
			t.Errorf("%s: %+v, and %d releases are waited for", name, p.Stats(), p.live.pending())
		}
	}
}

// strict refuses a second free, and hands out no address again. It calls began in the next free, once,
// before it tries it, and succeeded in the next free that succeeds.
type strict struct {
	heap             blockalloc.Heap
	mu               sync.Mutex
	freed            map[uintptr]blockalloc.Block
	began, succeeded func()
}

func (s *strict) Allocate(l blockalloc.Layout) (blockalloc.Block, error) { return s.heap.Allocate(l) }

func (s *strict) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	n, err := s.Allocate(blockalloc.Layout{Size: size, Align: b.Align()})
	if err == nil {
		err = s.Free(b)
	}
	return n, err
}

func (s *strict) Free(b blockalloc.Block) error {
	s.mu.Lock()
	began := s.began
	s.began = nil
	s.mu.Unlock()
	if began != nil {
		began()
	}
	s.mu.Lock()
	if _, freed := s.freed[b.Addr()]; freed {
		s.mu.Unlock()
		return blockalloc.ErrDoubleFree
	}
	if s.freed == nil {
		s.freed = make(map[uintptr]blockalloc.Block)
	}
	s.freed[b.Addr()] = b
	succeeded := s.succeeded
	s.succeeded = nil
	s.mu.Unlock()
	if succeeded != nil {
		succeeded()
	}
	return nil
}

// TestForeignFreeOfTwo: of two that free a block at once, the second to begin can be the one that
// succeeds. The one that fails brings nothing back, and it is a foreign free only if the one that
// succeeds does not own the block.
func TestForeignFreeOfTwo(t *testing.T) {
	if goroutine.ID() == 0 {
		t.Skip("goroutines cannot be told apart here")
	}
	const early, late = "before the other has ended", "after the other has ended"
	for _, fails := range []string{early, late} {
		for name, c := range map[string]struct {
			loser, winner func(a, b *alloctrace.Proxy) *alloctrace.Proxy
			want          int64
		}{
			"both the owner": {first, first, 0}, "the owner wins": {second, first, 0}, "the other wins": {first, second, 1}, "both others": {second, second, 1},
		} {
			s := new(strict)
			p := New(Options{Rate: 1})
			lower := alloctrace.Wrap(s, alloctrace.WithHooks(p))
			a, b := alloctrace.Wrap(lower, alloctrace.WithHooks(p)), alloctrace.Wrap(lower, alloctrace.WithHooks(p))
			block := placeA(t, a, 64)
			loser, winner := c.loser(a, b), c.winner(a, b)
			begun, gate, lost := make(chan bool), make(chan bool), make(chan error)
			s.began = func() { close(begun); <-gate } // the loser waits
			go func() { lost <- loser.Free(block) }()
			<-begun
			lose := func() {
				close(gate)
				if err := <-lost; !errors.Is(err, blockalloc.ErrDoubleFree) {
					t.Errorf("%s, %s: the loser's free: %v", name, fails, err)
				}
			}
			if fails == early {
				s.succeeded = lose
			}
			if err := winner.Free(block); err != nil {
				t.Error(err)
			}
			if fails == late {
				lose()
			}
			if got := p.Stats(); got.ForeignFrees != c.want || got.Live != 0 || p.live.pending() != 0 {
				t.Errorf("%s, %s: %+v, %v, and %d releases are waited for, want %d foreign frees", name, fails, got, p.ForeignFrees(), p.live.pending(), c.want)
			}
		}
	}
}

func first(a, _ *alloctrace.Proxy) *alloctrace.Proxy { return a }

func second(_, b *alloctrace.Proxy) *alloctrace.Proxy { return b }

// TestForeignFreeStorm: of two that free each block at once, through any Proxy, one succeeds, and those
// are foreign frees that do not own the block. Others allocate and free meanwhile.
func TestForeignFreeStorm(t *testing.T) {
	if goroutine.ID() == 0 {
		t.Skip("goroutines cannot be told apart here")
	}
	steps := 2000
	if requireAll {
		steps = 40_000
	}
	for name, stacked := range map[string]bool{"side by side": false, "stacked": true} {
		t.Run(name, func(t *testing.T) {
			p := New(Options{Rate: 1})
			var inner blockalloc.Allocator = new(strict)
			if stacked {
				inner = alloctrace.Wrap(inner, alloctrace.WithHooks(p))
			}
			a, other := alloctrace.Wrap(inner, alloctrace.WithHooks(p)), alloctrace.Wrap(inner, alloctrace.WithHooks(p))
			all := []*alloctrace.Proxy{a, other, a.Child("x"), other.Child("y")}
			var want atomic.Int64
			var wg sync.WaitGroup
			for w := range uint64(4) {
				rnd := rand.New(rand.NewPCG(w, 21))
				wg.Go(func() {
					for range steps {
						by := all[rnd.IntN(len(all))]
						b := placeA(t, by, 64)
						var freed sync.WaitGroup
						for range 2 {
							through := all[rnd.IntN(len(all))]
							freed.Go(func() {
								if through.Free(b) == nil && through != by {
									want.Add(1)
								}
							})
						}
						freed.Wait()
					}
				})
			}
			wg.Wait()
			if got := p.Stats(); got.ForeignFrees != want.Load() || got.Live != 0 || p.live.pending() != 0 {
				t.Errorf("%+v, and %d releases are waited for, want %d foreign frees", got, p.live.pending(), want.Load())
			}
			wantNoneInFilter(t, p)
		})
	}
}

// TestManyForeignFrees: all are counted and some are kept, and a report is text and JSON.
func TestManyForeignFrees(t *testing.T) {
	f := newFamily(Options{Rate: 1}, new(blockalloc.Heap))
	for range maxForeign + 10 {
		freeHere(t, f.other, placeA(t, f.x, 64))
	}
	if n := len(f.p.ForeignFrees()); n != maxForeign || f.p.Stats().ForeignFrees != maxForeign+10 {
		t.Errorf("%d are kept of %d", n, f.p.Stats().ForeignFrees)
	}
	r := f.p.Report()
	text := r.String()
	line := `  64 B at 0x[0-9a-f]+: allocated through Proxy "a", child "x", by heapprofile\.placeA \(profile_test\.go:\d+\), heapprofile\.TestManyForeignFrees \(foreign_test\.go:\d+\); freed through a Proxy without a name by heapprofile\.freeHere \(foreign_test\.go:\d+\), heapprofile\.TestManyForeignFrees \(foreign_test\.go:\d+\)\n`
	want := regexp.MustCompile(`^nothing is live\n60 blocks were freed through another Proxy or child than the one that allocated them, and the numbers of both are wrong:\n(` + line + `){50}  and 10 more\n$`)
	if !want.MatchString(text) {
		t.Errorf("%s", text)
	}
	asJSON, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(asJSON, &back); err != nil || back.String() != text {
		t.Errorf("back from JSON: %v\n%s", err, back)
	}
	one := newFamily(Options{Rate: 1}, new(blockalloc.Heap))
	freeHere(t, one.other, placeA(t, one.x, 64))
	if text := one.p.Report().String(); !strings.Contains(text, "\n1 block was freed through another Proxy or child than the one that allocated it, and the numbers of both are wrong:\n  64 B at ") {
		t.Error(text)
	}
}
