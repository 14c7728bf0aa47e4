//go:build cgo && unix

package cmem_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
	"unsafe"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/cmem"
	"github.com/alloctrace/alloctrace/blockalloc/cmem/internal/ctest"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// stacked returns a Proxy over a Limit over a Malloc, and checks in the end that nothing is left.
func stacked(t *testing.T, limit int64) (*alloctrace.Proxy, *blockalloc.Limit, *cmem.Malloc) {
	m := new(cmem.Malloc)
	l := blockalloc.NewLimit(m, limit)
	p := alloctrace.Wrap(l, alloctrace.WithHooks(heapprofile.New(heapprofile.Options{Rate: 1})))
	t.Cleanup(func() {
		if s := p.Stats(); s.LiveBlocks != 0 || s.LiveBytes != 0 || l.Used() != 0 {
			t.Errorf("in the end %v, used %d", s, l.Used())
		}
	})
	return p, l, m
}

func allocate(t *testing.T, a blockalloc.Allocator, l blockalloc.Layout) blockalloc.Block {
	t.Helper()
	b, err := a.Allocate(l)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// text writes a string for C into b.
func text(b blockalloc.Block, s string) { copy(b.Bytes(), s+"\x00") }

func wantError(t *testing.T, err, target error) {
	t.Helper()
	if !errors.Is(err, target) || !strings.HasPrefix(fmt.Sprint(err), "cmem: ") {
		t.Errorf("error %v, want %v of cmem", err, target)
	}
}

// TestIntoC: C frees blocks that were handed over, of any alignment, and to all others they are freed.
func TestIntoC(t *testing.T) {
	p, l, m := stacked(t, 1<<20)
	var list ctest.List
	for i := range 100 {
		b := allocate(t, p, blockalloc.Layout{Size: uintptr(10 + 100*i), Align: 1 << (i % 13), Zeroed: i%3 == 0})
		text(b, "handed over")
		c, err := cmem.IntoC(p, b)
		if err != nil || c != b.Pointer() {
			t.Fatalf("IntoC = %p, %v", c, err)
		}
		if p.Owns(b) || m.Owns(b) || l.Used() != 0 || p.Stats().Frees != int64(i+1) {
			t.Errorf("after IntoC it is live: %v, used %d", p.Stats(), l.Used())
		}
		_, err = cmem.IntoC(p, b)
		wantError(t, err, blockalloc.ErrDoubleFree)
		wantError(t, m.Free(b), blockalloc.ErrDoubleFree)
		list.Push(c)
	}
	if n := list.End(); n != 100*len("handed over") {
		t.Errorf("C saw %d bytes", n)
	}
	if c, err := cmem.IntoC(p, blockalloc.Block{}); c != nil || err != nil {
		t.Errorf("IntoC of the empty block = %p, %v", c, err)
	}
}

// TestIntoCRefused: a block that cannot be handed over is as live as it was.
func TestIntoCRefused(t *testing.T) {
	p, _, m := stacked(t, 1<<20)
	b := allocate(t, p, blockalloc.Layout{Size: 100, Align: 8})
	_, err := cmem.IntoC(new(blockalloc.Heap), b)
	wantError(t, err, blockalloc.ErrNotOwned)
	_, err = cmem.IntoC(new(cmem.Malloc), b)
	wantError(t, err, blockalloc.ErrNotOwned)
	d := debug.New(m, debug.Options{})
	guarded := allocate(t, d, blockalloc.Layout{Size: 100, Align: 8})
	_, err = cmem.IntoC(d, guarded)
	wantError(t, err, blockalloc.ErrNotOwned)
	if err := errors.Join(d.Free(guarded), d.Close()); err != nil {
		t.Error(err)
	}
	never := failing.If(p, func(c failing.Call) bool { return c.Op == failing.OpFree })
	_, err = cmem.IntoC(never, b)
	wantError(t, err, failing.ErrInjected)
	if !p.Owns(b) {
		t.Error("the block is not live after IntoC has failed")
	}
	if err := p.Free(b); err != nil {
		t.Error(err)
	}
	first, second := blockalloc.NewLimit(new(cmem.Malloc), 64), new(cmem.Malloc)
	both := blockalloc.NewFallback(first, second)
	for range 3 {
		b := allocate(t, both, blockalloc.Layout{Size: 40, Align: 8})
		c, err := cmem.IntoC(both, b)
		if err != nil {
			t.Error(err)
		}
		ctest.Free(c)
	}
}

// TestFromC: memory that C has allocated is a block like others.
func TestFromC(t *testing.T) {
	p, l, m := stacked(t, 1<<20)
	c := ctest.Join("allocated ", "by C")
	const size = uintptr(len("allocated by C") + 1)
	b, err := cmem.FromC(t.Context(), p, c, size)
	if err != nil {
		t.Fatal(err)
	}
	if b.Pointer() != c || b.Requested() != size || string(b.Bytes()[:size]) != "allocated by C\x00" {
		t.Errorf("FromC = %v: %q", b, b.Bytes())
	}
	if s := p.Stats(); s.LiveBlocks != 1 || s.LiveRequestedBytes != int64(size) || l.Used() != int64(b.Size()) || !m.Owns(b) {
		t.Errorf("after FromC %v, used %d", s, l.Used())
	}
	_, err = cmem.FromC(t.Context(), p, c, size)
	wantError(t, err, blockalloc.ErrLive)
	_, err = cmem.FromC(t.Context(), p, unsafe.Add(c, 1), 1)
	wantError(t, err, blockalloc.ErrLive)
	if b, err = p.Reallocate(b, 100_000); err != nil || string(b.Bytes()[:size]) != "allocated by C\x00" {
		t.Fatalf("Reallocate: %v, %v", b, err)
	}
	if err := p.Free(b); err != nil {
		t.Error(err)
	}
	wantError(t, m.Free(b), blockalloc.ErrDoubleFree)
}

// TestFromCRefused: what is refused is C's as before, and C frees it.
func TestFromCRefused(t *testing.T) {
	p, l, m := stacked(t, 1000)
	_, err := cmem.FromC(t.Context(), p, nil, 1)
	wantError(t, err, blockalloc.ErrBadLayout)
	c := ctest.Malloc(900)
	defer ctest.Free(c)
	_, err = cmem.FromC(t.Context(), p, c, 0)
	wantError(t, err, blockalloc.ErrBadLayout)
	wantGone := func(err, target error) {
		t.Helper()
		wantError(t, err, target)
		if b, ok := m.Find(c); ok {
			t.Errorf("what was refused is live: %v", b)
		}
	}
	_, err = cmem.FromC(t.Context(), p, c, 1<<20)
	wantGone(err, blockalloc.ErrLimit) // it never fits
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	b := allocate(t, p, blockalloc.Layout{Size: 500, Align: 8})
	_, err = cmem.FromC(ctx, p, c, 900)
	wantGone(err, context.Canceled) // it has waited for room
	if err := p.Free(b); err != nil {
		t.Error(err)
	}
	l.SetMax(900) // and what C has granted does not fit, if it says what that is
	if b, err = cmem.FromC(ctx, p, c, 900); err == nil {
		if b.Size() != 900 {
			t.Errorf("%v above the limit", b)
		}
		_, err = cmem.IntoC(p, b)
	} else {
		wantGone(err, blockalloc.ErrLimit)
		err = nil
	}
	if err != nil {
		t.Error(err)
	}
	_, err = cmem.FromC(t.Context(), blockalloc.NewLocked(m), c, 900)
	wantGone(err, blockalloc.ErrNotOwned)
	_, err = cmem.FromC(t.Context(), debug.New(m, debug.Options{}), c, 900)
	wantGone(err, blockalloc.ErrNotOwned)
	_, err = cmem.FromC(t.Context(), blockalloc.Default(), c, 900)
	wantGone(err, blockalloc.ErrNotOwned)
	if b, err := cmem.FromC(t.Context(), m, c, 10_000); err == nil { // C does not say how much there is
		_, err = cmem.IntoC(m, b)
		t.Log("FromC of too many bytes:", b, err)
	} else {
		wantGone(err, blockalloc.ErrBadLayout)
	}
}

// TestFromCWaits: it waits for room as other allocations do.
func TestFromCWaits(t *testing.T) {
	p, _, _ := stacked(t, 2000)
	b := allocate(t, p, blockalloc.Layout{Size: 1500, Align: 8})
	c := ctest.Malloc(900)
	came := make(chan blockalloc.Block)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		b, err := cmem.FromC(ctx, p, c, 900)
		if err != nil {
			t.Error(err)
		}
		came <- b
	}()
	if err := p.Free(b); err != nil {
		t.Error(err)
	}
	if err := p.Free(<-came); err != nil {
		t.Error(err)
	}
}

// TestHandOverStorm: goroutines hand blocks to C and back, so that addresses go from one to the other.
func TestHandOverStorm(t *testing.T) {
	p, _, _ := stacked(t, 64<<20)
	rounds := 300
	if testing.Short() {
		rounds = 50
	}
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			var list ctest.List
			for i := range rounds {
				c := ctest.Join(strings.Repeat("a", 1+g), strings.Repeat("b", i))
				b, err := cmem.FromC(t.Context(), p, c, uintptr(g+i+2))
				if err == nil && i%2 == 0 {
					b, err = p.Reallocate(b, uintptr(2*(g+i+2)))
				}
				if err == nil && i%3 == 0 {
					err = p.Free(b)
				} else if err == nil {
					if c, err = cmem.IntoC(p, b); err == nil {
						list.Push(c)
					}
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
			list.End()
		})
	}
	wg.Wait()
}

// TestLeak: what C was to get and never got is a leak like others.
func TestLeak(t *testing.T) {
	m := new(cmem.Malloc)
	profile := heapprofile.New(heapprofile.Options{Rate: 1})
	p := alloctrace.Wrap(m, alloctrace.WithHooks(profile))
	b := allocate(t, p, blockalloc.Layout{Size: 100, Align: 8})
	if r := profile.Report().String(); !strings.Contains(r, "cmem_test.allocate") && !strings.Contains(r, "cmem_test.TestLeak") {
		t.Errorf("leaks: %s", r)
	}
	if err := p.Free(b); err != nil {
		t.Error(err)
	}
	alloctest.AssertLive(t, p, 0, 0)
}
