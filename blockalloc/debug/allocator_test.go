package debug_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
)

// Options, each as one would use it.
var (
	mild     = debug.Options{Canary: -1, NoPoison: true, Quarantine: -1, Stack: -1}
	paranoid = debug.Options{Guard: true, ZeroFree: true, Quarantine: 64 << 20, QuarantineBlocks: 2000, Stack: 64}
)

// liveBytes is for blocktest.
func liveBytes(a blockalloc.Allocator) int64 { return a.(*debug.Allocator).Stats().LiveBytes }

func TestConforms(t *testing.T) {
	t.Parallel()
	fewGuards := paranoid
	fewGuards.Zeroed, fewGuards.MaxGuarded = true, 100 // the other blocks come from the parent
	for name, o := range map[string]debug.Options{
		"Mild":           mild,
		"Default":        {},
		"Zeroed":         {Zeroed: true, ZeroFree: true, QuarantineBlocks: 7},
		"Long":           {Canary: 300, NoPoison: true, Quarantine: 1 << 20, Stack: 1},
		"Paranoid":       paranoid,
		"ParanoidZeroed": fewGuards,
	} {
		c := blocktest.Config{MaxSize: 64 << 10, Zeroed: o.Zeroed, LiveBytes: liveBytes, New: func(t testing.TB) blockalloc.Allocator {
			return newAllocator(t, newRoot(), o)
		}}
		if !o.Guard { // all memory is the parent's
			c.NewOver = func(t testing.TB, parent blockalloc.Allocator) (blockalloc.Allocator, error) {
				return newAllocator(t, parent, o), nil
			}
		}
		if allModes || name == "Default" || name == "ParanoidZeroed" {
			t.Run(name, func(t *testing.T) { blocktest.Run(t, c) })
		}
	}
	t.Run("Pool", func(t *testing.T) {
		blocktest.Run(t, blocktest.Config{MaxSize: 64 << 10, LiveBytes: liveBytes, New: func(t testing.TB) blockalloc.Allocator {
			return newAllocator(t, blockalloc.Default(), debug.Options{})
		}})
	})
}

// TestInside: an Allocator is the inner allocator of others, in each mode.
func TestInside(t *testing.T) {
	t.Parallel()
	for name, o := range map[string]debug.Options{"Default": {}, "Paranoid": paranoid} {
		for outer, wrap := range map[string]func(t testing.TB) blockalloc.Allocator{
			"Locked": func(t testing.TB) blockalloc.Allocator {
				return blockalloc.NewLocked(blockalloc.NewLimit(newAllocator(t, newRoot(), o), 1<<40))
			},
			"Segregate": func(t testing.TB) blockalloc.Allocator {
				large := blockalloc.NewFallback(newAllocator(t, newRoot(), o), blockalloc.Null{})
				return blockalloc.NewSegregate(newAllocator(t, newRoot(), o), large, 4096)
			},
			"Slab": func(t testing.TB) blockalloc.Allocator {
				slab, err := blockalloc.NewSlab(newAllocator(t, newRoot(), o), 64<<10)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = slab.Close() }) // first
				return slab
			},
		} {
			if (name == "Default") == (outer == "Slab") {
				continue // the other mode does it
			}
			t.Run(name+"/"+outer, func(t *testing.T) {
				blocktest.Run(t, blocktest.Config{MaxSize: 128 << 10, New: wrap})
			})
		}
	}
}

// TestPoison: what fresh and freed memory is full of, by option.
func TestPoison(t *testing.T) {
	for name, c := range map[string]struct {
		options      debug.Options
		fresh, freed byte
	}{
		"Default":         {debug.Options{}, 0xcd, 0xdd},
		"NoPoison":        {debug.Options{NoPoison: true}, 0, 0x11},
		"ZeroFree":        {debug.Options{ZeroFree: true}, 0xcd, 0},
		"ZeroFreeUnguard": {debug.Options{ZeroFree: true, Guard: true, MaxGuarded: -1}, 0xcd, 0},
		"ZeroFree only":   {debug.Options{ZeroFree: true, NoPoison: true}, 0, 0},
		"Zeroed":          {debug.Options{Zeroed: true}, 0, 0xdd},
	} {
		d := debug.New(new(blockalloc.Heap), c.options)
		b := mustAllocate(t, d, 100, 8)
		full := func(v byte) bool { return !slices.ContainsFunc(b.Bytes(), func(x byte) bool { return x != v }) }
		if !full(c.fresh) {
			t.Errorf("%s: fresh memory is % x, want %x", name, b.Bytes(), c.fresh)
		}
		for i := range b.Bytes() {
			b.Bytes()[i] = 0x11
		}
		mustFree(t, d, b)
		if !full(c.freed) {
			t.Errorf("%s: freed memory is % x, want %x", name, b.Bytes(), c.freed)
		}
		mustClose(t, d)
	}
	if hasGuards {
		d := debug.New(blockalloc.Null{}, debug.Options{Guard: true, Quarantine: -1})
		b := mustAllocate(t, d, 5000, 8)
		if i := slices.IndexFunc(b.Bytes(), func(x byte) bool { return x != 0xcd }); i >= 0 {
			t.Errorf("fresh guarded memory is %x at %d", b.Bytes()[i], i)
		}
		mustFree(t, d, b)
		mustClose(t, d)
	}
}

// TestQuarantine: an address is not reused before enough blocks, or bytes, have
// followed it into the quarantine.
func TestQuarantine(t *testing.T) {
	for name, c := range map[string]struct {
		options debug.Options
		keeps   int
	}{
		"none":   {debug.Options{Quarantine: -1}, 0},
		"blocks": {debug.Options{QuarantineBlocks: 5}, 5},
		"bytes":  {debug.Options{Quarantine: 350}, 3},
		"large":  {debug.Options{Quarantine: 99}, 0},
	} {
		inner := &counting{Allocator: new(blockalloc.Heap)}
		d := debug.New(inner, c.options)
		for i := range 10 {
			mustFree(t, d, mustAllocate(t, d, 100, 1))
			kept := min(i+1, c.keeps)
			if s := d.Stats(); s.QuarantinedBlocks != kept || s.QuarantinedBytes != int64(100*kept) || inner.live != kept {
				t.Errorf("%s: after %d frees %+v, and %d blocks live at the parent; want %d", name, i+1, s, inner.live, kept)
			}
		}
		mustClose(t, d)
		if inner.live != 0 {
			t.Errorf("%s: after Close %d blocks are live at the parent", name, inner.live)
		}
	}
}

// counting counts the blocks that are live, and fails to free on demand.
type counting struct {
	blockalloc.Allocator
	live  int
	stuck error
}

func (c *counting) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	b, err := c.Allocator.Allocate(l)
	if err == nil {
		c.live++
	}
	return b, err
}

func (c *counting) Free(b blockalloc.Block) error {
	if c.stuck != nil {
		return c.stuck
	}
	c.live--
	return c.Allocator.Free(b)
}

// TestParentKeepsBlocks: if the parent does not take blocks back, Close returns its error,
// and the next Close asks it again.
func TestParentKeepsBlocks(t *testing.T) {
	inner := &counting{Allocator: new(blockalloc.Heap), stuck: errors.New("no luck today")}
	d := debug.New(inner, debug.Options{QuarantineBlocks: 1})
	var blocks []blockalloc.Block
	for range 3 {
		b := mustAllocate(t, d, 64, 64)
		mustFree(t, d, b)
		blocks = append(blocks, b)
	}
	for _, b := range blocks {
		if err := d.Free(b); !errors.Is(err, blockalloc.ErrDoubleFree) || d.Owns(b) {
			t.Errorf("second Free: %v", err)
		}
	}
	if s := d.Stats(); s.WithheldBlocks != 2 || s.QuarantinedBlocks != 1 {
		t.Errorf("%+v, want 2 blocks withheld and 1 in quarantine", s)
	}
	if err := d.Close(); !errors.Is(err, inner.stuck) {
		t.Errorf("Close: %v, want %v", err, inner.stuck)
	}
	inner.stuck = nil
	mustClose(t, d)
	mustClose(t, d)
	if inner.live != 0 {
		t.Errorf("%d blocks are live at the parent", inner.live)
	}
}

// TestGivesBackBeforeItFails: the quarantine does not make a parent run out.
func TestGivesBackBeforeItFails(t *testing.T) {
	for name, o := range map[string]debug.Options{"Default": {}, "Reallocate": {Quarantine: 1 << 30}} {
		d := debug.New(blockalloc.NewLimit(new(blockalloc.Heap), 10_000), o)
		b := mustAllocate(t, d, 1000, 8)
		for range 50 {
			n, err := d.Reallocate(b, 1000)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			b = n
		}
		if n, err := d.Reallocate(b, 10_000); !errors.Is(err, blockalloc.ErrLimit) || n != b || !strings.Contains(err.Error(), "debug: Reallocate(block") {
			t.Errorf("%s: Reallocate beyond the limit = %v, %v", name, n, err)
		}
		if _, err := d.Allocate(blockalloc.BlockLayout(16 << 10)); !errors.Is(err, blockalloc.ErrLimit) || !strings.HasPrefix(err.Error(), "debug: Allocate(16384 B") {
			t.Errorf("%s: Allocate beyond the limit: %v", name, err)
		}
		mustFree(t, d, b)
		mustClose(t, d)
	}
}

// TestHoldsParentToZeros: the promise is checked on every block, and a block that
// breaks it goes back.
func TestHoldsParentToZeros(t *testing.T) {
	inner := &counting{Allocator: debug.New(new(blockalloc.Heap), debug.Options{Zeroed: true, Quarantine: -1})}
	d := debug.New(inner, debug.Options{Zeroed: true})
	b := mustAllocate(t, d, 64, 8)
	counts := &counting{Allocator: &soiled{at: 40}}
	dirty := debug.New(counts, debug.Options{Zeroed: true})
	_, err := dirty.Allocate(blockalloc.Layout{Size: 64, Align: 8})
	var r *debug.Report
	if !errors.Is(err, blockalloc.ErrNotZeroed) || !errors.As(err, &r) || r.Kind != debug.NotZeroed || r.Offset != 24 || r.Length != 1 || err.Error() != r.Error() || counts.live != 0 {
		t.Errorf("Allocate of dirty memory: %v; want ErrNotZeroed at byte 24", err)
	}
	if s := dirty.Stats(); s != (debug.Stats{}) {
		t.Errorf("after a refusal %+v", s)
	}
	old := mustAllocate(t, d, 8, 8)
	if n, err := dirty.Reallocate(old, 8); !errors.Is(err, blockalloc.ErrNotOwned) || n != old {
		t.Errorf("Reallocate of another's block: %v", err)
	}
	mustFree(t, d, old)
	clean := mustAllocate(t, d, 16, 8)
	mustFree(t, d, clean)
	mustFree(t, d, b)
	mustClose(t, d)
}

// TestZeroedIsNotPoisoned: a block that is to be zeroed has no poison in it, has its canaries around it, and is
// checked whether or not the options say that all memory is zeroed.
func TestZeroedIsNotPoisoned(t *testing.T) {
	l := blockalloc.Layout{Size: 64, Align: 8, Zeroed: true}
	pool := new(blockalloc.Pool)
	d := debug.New(pool, debug.Options{Quarantine: -1})
	for range 2 { // the second has the memory of the first, poisoned
		b, err := d.Allocate(l)
		if err != nil || !bytes.Equal(b.Bytes(), make([]byte, 64)) {
			t.Fatalf("Allocate(%v) = %x, %v", l, b.Bytes(), err)
		}
		b.Bytes()[63] = 7
		n, err := d.Reallocate(b, 100)
		if err != nil || !bytes.Equal(n.Bytes()[64:], make([]byte, 36)) || n.Bytes()[63] != 7 {
			t.Fatalf("Reallocate(%v, 100) = %x, %v", b, n.Bytes(), err)
		}
		unsafe.Slice((*byte)(n.Pointer()), 101)[100]++
		if err := d.Free(n); !errors.Is(err, blockalloc.ErrOverrun) {
			t.Errorf("Free after a write past the end: %v", err)
		}
		mustFree(t, d, n)
	}
	mustClose(t, d)
	if err := pool.Close(); err != nil {
		t.Error(err)
	}

	dirty := debug.New(&soiled{at: 40}, debug.Options{})
	if _, err := dirty.Allocate(l); !errors.Is(err, blockalloc.ErrNotZeroed) {
		t.Errorf("Allocate(%v) of a parent that ignores it: error %v, want ErrNotZeroed", l, err)
	}
	mustFree(t, dirty, mustAllocate(t, dirty, 64, 8))
	mustClose(t, dirty)
}

// soiled is a Heap that has written to one byte of its blocks.
type soiled struct {
	blockalloc.Heap
	at int
}

func (s *soiled) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	b, err := s.Heap.Allocate(l)
	if err == nil {
		b.Bytes()[s.at] = 1
	}
	return b, err
}

// crooked is a Heap that does not align its blocks.
type crooked struct{ blockalloc.Heap }

func (c *crooked) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	whole, err := c.Heap.Allocate(blockalloc.Layout{Size: l.Size + 1, Align: l.Align})
	if err != nil {
		return whole, err
	}
	return blockalloc.NewBlock(unsafe.Add(whole.Pointer(), 1), l.Size, blockalloc.Layout{Size: l.Size, Align: 1})
}

func (c *crooked) Free(blockalloc.Block) error { return nil }

// TestParentDoesNotAlign: its block is refused and goes back.
func TestParentDoesNotAlign(t *testing.T) {
	inner := &counting{Allocator: new(crooked)}
	d := newAllocator(t, inner, debug.Options{})
	if b, err := d.Allocate(blockalloc.BlockLayout(64)); !errors.Is(err, blockalloc.ErrBadLayout) || !b.IsZero() {
		t.Errorf("Allocate = %v, %v, want ErrBadLayout", b, err)
	}
	if s := d.Stats(); s != (debug.Stats{}) || inner.live != 0 {
		t.Errorf("%+v and %d blocks of the parent", s, inner.live)
	}
}

func TestMisuse(t *testing.T) {
	heap := new(blockalloc.Heap)
	d := debug.New(heap, debug.Options{})
	if got := blockalloc.Tree(blockalloc.NewLocked(d)); got != "Locked\n└── debug.Allocator\n    └── Heap" {
		t.Errorf("Tree:\n%s", got)
	}
	guarded := debug.New(heap, debug.Options{Guard: true})
	if got := guarded.String(); hasGuards != (got == "debug.Allocator with guard pages") {
		t.Errorf("String = %q", got)
	}
	if d.Parent() != blockalloc.Allocator(heap) {
		t.Error("Parent is another one")
	}
}

// TestLargest: there is an error and no overflow near the end of the address
// space.
func TestLargest(t *testing.T) {
	largest := ^uintptr(0) >> 16
	if ^uintptr(0)>>32 == 0 || runtime.GOARCH == "wasm" {
		largest = 1<<31 - 1<<16 - 1
	}
	for _, o := range []debug.Options{{}, {Canary: 1 << 30}, {Guard: true}} {
		d := debug.New(blockalloc.Null{}, o)
		for _, l := range []blockalloc.Layout{
			{Size: largest, Align: 1}, {Size: 1, Align: largest/2 + 1 - (largest/2+1)%(1<<30)}, {Size: largest, Align: 1 << 30}, {Size: largest - 4096, Align: 4096},
		} {
			b, err := d.Allocate(l)
			if err == nil { // an address space without any check
				mustFree(t, d, b)
			} else if !errors.Is(err, blockalloc.ErrOutOfMemory) && !errors.Is(err, blockalloc.ErrBadLayout) {
				t.Errorf("Allocate(%v): %v", l, err)
			} else if s := d.Stats(); s != (debug.Stats{}) {
				t.Errorf("after a refusal %+v", s)
			}
		}
		mustClose(t, d)
	}
}

// TestGuardsAreBounded: blocks beyond MaxGuarded come from the parent. They are guarded
// again once fewer are mapped.
func TestGuardsAreBounded(t *testing.T) {
	if !hasGuards {
		return
	}
	inner := &counting{Allocator: new(blockalloc.Heap)}
	d := debug.New(inner, debug.Options{Guard: true, MaxGuarded: 3, Quarantine: -1})
	var blocks []blockalloc.Block
	for range 5 {
		blocks = append(blocks, mustAllocate(t, d, 64, 64))
	}
	if s := d.Stats(); s.GuardedBlocks != 3 || inner.live != 2 {
		t.Errorf("%+v and %d blocks of the parent; want 3 and 2", s, inner.live)
	}
	mustFree(t, d, blocks[0])
	blocks[0] = mustAllocate(t, d, 64, 64)
	if s := d.Stats(); s.GuardedBlocks != 3 || inner.live != 2 {
		t.Errorf("%+v and %d blocks of the parent; want 3 and 2", s, inner.live)
	}
	for _, b := range blocks {
		mustFree(t, d, b)
	}
	mustClose(t, d)
	if s := d.Stats(); s != (debug.Stats{}) || inner.live != 0 {
		t.Errorf("after Close %+v and %d blocks of the parent", s, inner.live)
	}
}

// TestGuardPlaces: a guarded block ends where its pages do, as far as its
// alignment allows.
func TestGuardPlaces(t *testing.T) {
	if !hasGuards {
		return
	}
	page := uintptr(os.Getpagesize())
	d := debug.New(blockalloc.Null{}, debug.Options{Guard: true})
	for _, l := range []blockalloc.Layout{{Size: 1, Align: 1}, {Size: 100, Align: 4}, {Size: 100, Align: 64}, {Size: page, Align: page}, {Size: page + 1, Align: 8}, {Size: 5, Align: 4 * page}, {Size: 3 * page, Align: 16 * page}, {Size: 1 << 20, Align: 1 << 20}} {
		b := mustAllocate(t, d, l.Size, l.Align)
		end := b.Addr() + b.Size()
		if gap := -end % page; b.Size() != l.Size || l.Align <= page && gap >= l.Align || b.Addr()%l.Align != 0 {
			t.Errorf("%v ends %d bytes before its page does", b, gap)
		}
		if err := d.Catch(func() { b.Bytes()[0], b.Bytes()[b.Size()-1] = 1, 2 }); err != nil {
			t.Errorf("%v: %v", b, err)
		}
		mustFree(t, d, b)
	}
	mustClose(t, d)
}

// TestCanaryIsBounded: at 64 KiB.
func TestCanaryIsBounded(t *testing.T) {
	d := newAllocator(t, blockalloc.NewLimit(new(blockalloc.Heap), 2*64<<10+8), debug.Options{Canary: 1 << 30})
	mustFree(t, d, mustAllocate(t, d, 8, 8))
}

// TestOnReport gets all that is found, once for each time, and can use the
// Allocator.
func TestOnReport(t *testing.T) {
	var d *debug.Allocator
	var delivered []string
	d = debug.New(new(blockalloc.Heap), debug.Options{QuarantineBlocks: 1, OnReport: func(r *debug.Report) {
		d.Stats()
		mustFree(t, d, mustAllocate(t, d, 1, 1))
		delivered = append(delivered, fmt.Sprint(r.Op, ": ", r.Kind))
	}})
	b, c := mustAllocate(t, d, 64, 8), mustAllocate(t, d, 64, 8)
	beyond(b, 64, 1)[0] = 0
	_ = d.Check()
	_ = d.Free(b)
	mustFree(t, d, b)
	_ = d.Free(b)
	_, _ = d.Reallocate(b, 9)
	b = mustAllocate(t, d, 64, 8)
	mustFree(t, d, b)
	b.Bytes()[3] = 0
	mustFree(t, d, mustAllocate(t, d, 1, 1)) // pushes b out
	_ = d.Close()
	mustFree(t, d, c)
	if err := d.Close(); !errors.Is(err, blockalloc.ErrUseAfterFree) {
		t.Errorf("Close: %v, want ErrUseAfterFree", err)
	}
	want := "Check: overrun, Free: overrun, Free: double free, Reallocate: double free, : use after free, Close: leak"
	if got := strings.Join(delivered, ", "); got != want {
		t.Errorf("delivered\n%s\nwant\n%s", got, want)
	}
}
