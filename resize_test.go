package alloctrace_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
)

// TestResize: a block that is resized in place counts as reallocated and is delivered so, at one address. One that would
// have to move to grow leaves no trace.
func TestResize(t *testing.T) {
	bump, err := blockalloc.NewBump(new(blockalloc.Heap), 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	var seen recorder
	observer := newLedger(t)
	p := alloctrace.Wrap(bump, alloctrace.WithHooks(&seen, observer))
	events := func() (kinds []string) {
		for _, e := range seen.events {
			kinds = append(kinds, fmt.Sprint(e.Kind, " ", e.Size))
		}
		seen.events = nil
		return kinds
	}
	expect := func(what string, want ...string) {
		t.Helper()
		if got := events(); !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	b := allocate(t, p, blockalloc.Layout{Size: 1000, Align: 8})
	events()
	for _, size := range []uintptr{3000, 2000} {
		old := b
		if b, err = p.Resize(b, size); err != nil || b.Addr() != old.Addr() || b.Size() != size {
			t.Fatalf("Resize(%v, %d) = %v, %v", old, size, b, err)
		}
		expect("in place", fmt.Sprint("reallocating ", old.Size()), fmt.Sprint("reallocated ", size))
		if s := p.Stats(); s.LiveBytes != int64(size) || s.LiveBlocks != 1 || s.FailedReallocations != 0 {
			t.Errorf("after Resize to %d: %+v", size, s)
		}
	}
	if s := p.Stats(); s.Reallocations != 2 {
		t.Errorf("%d reallocations, want 2", s.Reallocations)
	}

	newest := allocate(t, p, blockalloc.Layout{Size: 1000, Align: 8})
	events()
	before := p.Stats()
	if n, err := p.Resize(b, 2001); !errors.Is(err, blockalloc.ErrWouldMove) || n != b {
		t.Errorf("Resize beside another block = %v, %v; want the block and ErrWouldMove", n, err)
	}
	expect("it would move")
	if s := p.Stats(); s != before {
		t.Errorf("%+v, before a block would move %+v", s, before)
	}
	if n, err := p.Resize(newest, 1<<20); !errors.Is(err, blockalloc.ErrOutOfMemory) || n != newest {
		t.Errorf("Resize beyond the end = %v, %v; want the block and ErrOutOfMemory", n, err)
	}
	expect("out of memory", "reallocating 1000", "reallocate failed 1000")
	free(t, p, newest, b)
	events()
	if n, err := p.Resize(b, 10); !errors.Is(err, blockalloc.ErrDoubleFree) || n != b {
		t.Errorf("Resize of a freed block = %v, %v; want the block and ErrDoubleFree", n, err)
	}
	expect("freed", "reallocating 2000", "reallocate failed 2000")
	if s := p.Stats(); s.FailedReallocations != 2 || s.LiveBytes != 0 {
		t.Errorf("%+v", s)
	}
	b = allocate(t, p, page)
	if err := p.Close(); !errors.Is(err, alloctrace.ErrLive) {
		t.Error(err)
	}
	if n, err := p.Resize(b, 10); !errors.Is(err, blockalloc.ErrClosed) || n != b {
		t.Errorf("Resize after Close = %v, %v; want the block and ErrClosed", n, err)
	}
	free(t, p, b)
	observer.empty()
}

// TestResizeThatCannotShrink: the event that came before is taken back.
func TestResizeThatCannotShrink(t *testing.T) {
	observer := newLedger(t)
	p := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(observer))
	b := allocate(t, p, page)
	if n, err := p.Resize(b, 10); !errors.Is(err, blockalloc.ErrWouldMove) || n != b {
		t.Errorf("Resize = %v, %v; want the block and ErrWouldMove", n, err)
	}
	if observer.live[b.Addr()] != page.Size || p.Stats().FailedReallocations != 1 {
		t.Errorf("the hook knows of %v, and there are %+v", observer.live, p.Stats())
	}
	free(t, p, b)
	observer.empty()
}

// giver is an allocator that shrinks blocks in place, and calls given when what a block gives back may be another's and
// it has not yet returned.
type giver struct {
	blockalloc.Heap
	given func()
}

func (g *giver) Resize(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	g.given()
	return blockalloc.NewBlock(b.Pointer(), size, blockalloc.Layout{Size: size, Align: b.Align()})
}

// TestAddressRuleOfResize: hooks know that a block shrinks before what it gives back can be another's.
func TestAddressRuleOfResize(t *testing.T) {
	inner := &giver{}
	observer := newLedger(t)
	p := alloctrace.Wrap(inner, alloctrace.WithHooks(observer))
	b := allocate(t, p, page)
	inner.given = func() {
		if observer.live[b.Addr()] != 0 {
			t.Error("the hook believes that the whole block is in use")
		}
	}
	n, err := p.Resize(b, 64)
	if err != nil || observer.live[b.Addr()] != 64 {
		t.Errorf("Resize = %v, %v; the hook knows of %d bytes", n, err, observer.live[b.Addr()])
	}
}

// TestResizeRequested: who wants to know what was requested is told before others observe the event, and after they have
// observed that the block was released.
func TestResizeRequested(t *testing.T) {
	bump, err := blockalloc.NewBump(new(blockalloc.Heap), 64<<10)
	if err != nil {
		t.Fatal(err)
	}
	var seen []string
	p := alloctrace.Wrap(bump, alloctrace.WithName("p"), alloctrace.WithHooks(requestHook{&seen}))
	b := allocate(t, p, page)
	seen = nil
	if b, err = p.Resize(b, 5000); err != nil {
		t.Fatal(err)
	}
	if want := []string{"p: 5000 requested <nil>", "p: reallocated <nil>"}; !slices.Equal(seen, want) {
		t.Errorf("%q, want %q", seen, want)
	}
	free(t, p, b)
}

// TestResizeThroughWrappers: a Proxy is reached, and reaches what it wraps, through what lies between.
func TestResizeThroughWrappers(t *testing.T) {
	fixed, err := blockalloc.NewFixed(make([]byte, 64<<10))
	if err != nil {
		t.Fatal(err)
	}
	below := alloctrace.Wrap(fixed)
	a := alloctrace.Wrap(blockalloc.NewLimit(blockalloc.NewLocked(failing.If(
		blockalloc.NewFallback(blockalloc.NewSegregate(blockalloc.Null{}, below, 1), new(blockalloc.Heap)),
		func(failing.Call) bool { return false })), 10_000))
	b := allocate(t, a, blockalloc.Layout{Size: 4000, Align: 8})
	n, err := blockalloc.Resize(a, b, 10_000)
	if err != nil || n.Addr() != b.Addr() || n.Size() != 10_000 {
		t.Fatalf("Resize = %v, %v", n, err)
	}
	if _, err := blockalloc.Resize(a, n, 10_001); !errors.Is(err, blockalloc.ErrLimit) {
		t.Errorf("beyond the limit: %v", err)
	}
	for _, p := range []*alloctrace.Proxy{a, below} {
		if s := p.Stats(); s.LiveBytes != 10_000 || s.Reallocations != 1 || s.LiveBlocks != 1 {
			t.Errorf("%v: %+v", p, s)
		}
	}
	free(t, a, n)
}
