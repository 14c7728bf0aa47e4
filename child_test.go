package alloctrace_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// TestChildEnds: a child that is closed and has nothing live is gone, and its numbers are its
// parent's; with blocks live it stays until the last is freed.
func TestChildEnds(t *testing.T) {
	p := alloctrace.Wrap(alloctest.New(t))
	a, b := p.Child("a"), p.Child("b")
	grandchild := a.Child("c")
	own := p.Child("own", alloctrace.WithCounter(new(counter.Counter)))
	inA, inC, inOwn := allocate(t, a, page), allocate(t, grandchild, page), allocate(t, own, page)
	children := func(want ...*alloctrace.Proxy) {
		t.Helper()
		if got := p.Children(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("the children are %v, want %v", got, want)
		}
	}
	children(a, b, own)
	if err := b.Close(); err != nil {
		t.Error(err)
	}
	if err := own.Close(); !errors.Is(err, alloctrace.ErrLive) {
		t.Error(err)
	}
	children(a, own)
	if err := a.Close(); !errors.Is(err, alloctrace.ErrLive) {
		t.Error(err)
	}
	free(t, a, inA)
	free(t, own, inOwn)
	children(a) // for its child has a block
	if got := a.Children(); len(got) != 1 || got[0] != grandchild {
		t.Errorf("a has the children %v", got)
	}
	whole := p.Stats()
	free(t, grandchild.WithContext(t.Context()), inC)
	children()
	if s := p.Stats().Sub(whole); s.Frees != 1 || s.Allocations != 0 || p.Stats().LiveBytes != 0 {
		t.Errorf("the end of the last has changed the numbers by %v", s)
	}
	if s := a.Stats(); s.Allocations != 2 || s.Frees != 2 {
		t.Errorf("a has %v at its end", s)
	}
	if err := errors.Join(a.Close(), b.Close(), own.Close()); err != nil {
		t.Error(err)
	}
	if late := a.Child("late"); len(a.Children()) != 0 || late.Close() != nil {
		t.Error("a child of one that has ended is kept")
	}
}

// TestChildStats: children of one name are added up, and what they counted stays when they end.
func TestChildStats(t *testing.T) {
	p := alloctrace.Wrap(alloctest.New(t))
	kept := p.Child("connection")
	b := allocate(t, kept, page)
	for range 10 {
		c := p.Child("connection")
		inner := c.Child("buffer")
		free(t, inner, allocate(t, inner, page))
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if s := p.ChildStats()["connection"]; s.Allocations != 11 || s.Frees != 10 || s.LiveBytes != int64(page.Size) || s.PeakBytes != 2*int64(page.Size) {
		t.Errorf("all of one name: %v, want 11 allocations, 10 frees and a peak of two blocks", s)
	}
	for i := range 100 {
		c := p.Child(fmt.Sprint("of its own ", i))
		free(t, c, allocate(t, c, page))
		if i%2 == 0 {
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
	own := p.Child("connection", alloctrace.WithCounter(new(counter.Counter)))
	free(t, own, allocate(t, own, page))
	p.Child("")
	stats := p.ChildStats()
	ended, open := 0, 0
	for name, s := range stats {
		if name == "connection" {
			if s.Allocations != 12 {
				t.Errorf("with one that has a Counter of its own %v", s)
			}
			continue
		}
		var i int
		if _, err := fmt.Sscanf(name, "of its own %d", &i); err != nil || s.Allocations != 1 || s.Frees != 1 {
			t.Errorf("%q has %v", name, s)
		}
		if i%2 == 0 {
			ended++
		} else {
			open++
		}
	}
	if ended != 32 || open != 50 { // of the first 64 names
		t.Errorf("%d names of children that have ended, and %d of others; want 32 and 50", ended, open)
	}
	if s := p.Stats(); s.Allocations != 111 {
		t.Errorf("the whole has %v", s)
	}
	free(t, kept, b)
}

// TestManyChildren: children that were made and closed one after the other leave nothing, but
// their totals.
func TestManyChildren(t *testing.T) {
	children := 20_000
	if requireAll {
		children = 1_000_000
	}
	p := alloctrace.Wrap(measure.NewInner())
	live := func() uint64 {
		var m runtime.MemStats
		least := uint64(math.MaxUint64)
		for range 10 { // what shards had counted is taken over after the first, in another goroutine
			runtime.GC()
			runtime.Gosched()
			runtime.ReadMemStats(&m)
			least = min(least, m.HeapAlloc)
		}
		return least
	}
	blocks := func(i int) int { return 1 + max(0, i%20-17)*100 } // for one child in ten so many that it has shards of its own
	life := func(i int) {
		c := p.Child("connection")
		for range blocks(i) {
			b := allocate(t, c, page)
			free(t, c, b)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 1000 {
		life(i)
	}
	before := live()
	for i := range children {
		life(i)
	}
	if after := live(); after > before+before/4+256<<10 {
		t.Errorf("the heap has grown from %d to %d bytes", before, after)
	}
	var want int64
	for i := range 1000 {
		want += int64(blocks(i))
	}
	for i := range children {
		want += int64(blocks(i))
	}
	if s := p.Stats(); s.Allocations != want || s.Frees != want || len(p.Children()) != 0 || s.PeakBytes != int64(page.Size) {
		t.Errorf("%v, want %d allocations, all freed, and a peak of %d bytes", s, want, page.Size)
	}
}

// TestChildrenStorm closes children while others allocate through them: the whole is exact at
// rest, and none is left.
func TestChildrenStorm(t *testing.T) {
	rounds := 500
	if requireAll {
		rounds = 10_000
	}
	p := alloctest.New(t)
	const goroutines = 4
	var wg sync.WaitGroup
	var allocations [goroutines]int64
	for g := range goroutines {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(g), 1))
			for range rounds {
				c := p.Child("c")
				var users sync.WaitGroup
				var done [2]int64
				for u := range done {
					n := 1 + rnd.IntN(100)
					users.Go(func() {
						for range n {
							b, err := c.Allocate(page)
							if err != nil {
								if !errors.Is(err, blockalloc.ErrClosed) {
									t.Error(err)
								}
								return
							}
							done[u]++
							if err := c.Free(b); err != nil {
								t.Error(err)
							}
						}
					})
				}
				_ = c.Close() // whether or not blocks are live
				users.Wait()
				allocations[g] += done[0] + done[1]
			}
		})
	}
	wg.Wait()
	var want int64
	for _, n := range allocations {
		want += n
	}
	if s := p.Stats(); s.Allocations != want || s.Frees != want || s.LiveBytes != 0 {
		t.Errorf("%v, want %d allocations and frees", s, want)
	}
	if n := len(p.Children()); n != 0 {
		t.Errorf("%d children are left", n)
	}
}

// TestRequested: a hook that asks for it is given the size that was requested, of each
// acquisition before it observes it, with the same context, also below.
func TestRequested(t *testing.T) {
	var seen []string
	hook := alloctrace.WithHooks(requestHook{&seen})
	pool := new(blockalloc.Pool)
	defer func() {
		if err := pool.Close(); err != nil {
			t.Error(err)
		}
	}()
	below := alloctrace.Wrap(pool, hook, alloctrace.WithName("below"))
	p := alloctrace.Wrap(blockalloc.NewLimit(below, 1<<20), hook, alloctrace.WithName("p"))
	ctx := context.WithValue(t.Context(), requestHook{}, 1)
	expect := func(want ...string) {
		t.Helper()
		if !slices.Equal(seen, want) {
			t.Errorf("it has seen\n%s, want\n%s", strings.Join(seen, "\n"), strings.Join(want, "\n"))
		}
		seen = nil
	}
	view := p.WithContext(ctx)
	b, err := view.Allocate(blockalloc.Layout{Size: 100, Align: 8})
	if err != nil {
		t.Fatal(err)
	}
	expect("below: 100 requested 1", "below: allocated 1", "p: 100 requested 1", "p: allocated 1")
	if b, err = view.Child("c").Reallocate(b, 1000); err != nil {
		t.Fatal(err)
	}
	expect("below: 1000 requested 1", "below: reallocated 1", "pc: 1000 requested 1", "pc: reallocated 1")
	free(t, view, b)
	if b, err = p.AllocateContext(ctx, blockalloc.Layout{Size: 10, Align: 8}); err != nil {
		t.Fatal(err)
	}
	expect("below: 10 requested 1", "below: allocated 1", "p: 10 requested 1", "p: allocated 1")
	free(t, p, b)
	free(t, p.Quiet(), allocate(t, p.Quiet(), page))
	if _, err := p.Allocate(blockalloc.Layout{Size: 0, Align: 8}); err != nil {
		t.Fatal(err)
	}
	expect()
}

// A requestHook notes acquisitions with what was requested.
type requestHook struct{ seen *[]string }

func (h requestHook) Observe(context.Context, alloctrace.Event, error) {}

func (h requestHook) Attach(to *alloctrace.Attachment) alloctrace.Hook {
	of := to.Proxy + to.Child
	var last uintptr
	to.OnRequested(func(ctx context.Context, e alloctrace.Event, requested uintptr, _ uint64) uint64 {
		if e.Kind > alloctrace.Reallocated {
			return 0
		}
		last = e.Addr
		*h.seen = append(*h.seen, fmt.Sprint(of, ": ", requested, " requested ", ctx.Value(requestHook{})))
		return 0
	})
	return alloctrace.HookFunc(func(ctx context.Context, e alloctrace.Event, _ error) {
		if e.Kind <= alloctrace.Reallocated && e.Addr == last {
			*h.seen = append(*h.seen, fmt.Sprint(of, ": ", e.Kind, " ", ctx.Value(requestHook{})))
		}
	})
}
