package guard_test

import (
	"errors"
	"math/bits"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
	"github.com/alloctrace/alloctrace/blockalloc/guard"
	"github.com/alloctrace/alloctrace/internal/measure"
	"github.com/alloctrace/alloctrace/internal/pages"
)

// TestPlaces: blocks of every size and alignment that have a slot are where they are to be, between bytes that
// cannot be accessed, some at the end of their pages and some at the start.
func TestPlaces(t *testing.T) {
	if !pages.Supported {
		return
	}
	a, list := reports(t)
	most := a.MaxSize()
	room := 32768 * pages.Size // in the largest slot
	if bits.UintSize == 32 {
		room = 256 * pages.Size
	}
	for _, size := range []uintptr{1, 100, pages.Size - 1, pages.Size, pages.Size + 1, 15 * pages.Size, 15*pages.Size + 1, 1000_000, most - 1, most} {
		for align := uintptr(1); align <= size && max(align, pages.Size)+pages.RoundUp(size, pages.Size) <= room; align *= 8 {
			var ends, starts int
			for ends+starts < 40 && (ends == 0 || starts == 0) {
				b := mustAllocate(t, a, size, align)
				if b.Size() != size || b.Addr()%align != 0 || !a.Owns(b) {
					t.Fatalf("%d bytes aligned to %d: %v", size, align, b)
				}
				if b.Bytes()[0] != 0 || b.Bytes()[size-1] != 0 {
					t.Errorf("%v is not zeroed", b)
				}
				b.Bytes()[0], b.Bytes()[size-1] = 1, 1
				if pages.RoundUp(b.Addr()+size, align)&(pages.Size-1) == 0 {
					ends++
				}
				if b.Addr()&(pages.Size-1) == 0 {
					starts++
				}
				outside := func(offset int) error { return a.Catch(func() { accessor(pointer(b, offset), false) }) }
				before, after := -int(b.Addr()&(pages.Size-1))-1, int(size)+int(-(b.Addr()+size)&(pages.Size-1))
				if err := outside(before); !errors.Is(err, blockalloc.ErrUnderrun) {
					t.Errorf("read of byte %d of %v: %v", before, b, err)
				}
				if err := outside(after); !errors.Is(err, blockalloc.ErrOverrun) {
					t.Errorf("read of byte %d of %v: %v", after, b, err)
				}
				mustFree(t, a, b)
			}
			if (align <= pages.Size && ends == 0) || starts == 0 {
				t.Errorf("of the blocks of %d bytes aligned to %d, %d are at the end of their pages and %d at the start", size, align, ends, starts)
			}
		}
	}
	for _, l := range []blockalloc.Layout{{Size: most + 1, Align: 1}, {Size: 1, Align: 1 << 30}} {
		if b, err := a.Allocate(l); !errors.Is(err, blockalloc.ErrOutOfMemory) {
			t.Errorf("%v: %v, %v; want that Null is asked", l, b, err)
		}
	}
	if s := a.Stats(); s.TooLarge != 2 || s.Full != 0 || int(s.Reports) != len(*list) {
		t.Errorf("%+v", s)
	}
}

// TestOldestFirst: a slot is reused when all others of its class were, so that stale pointers are found meanwhile.
func TestOldestFirst(t *testing.T) {
	if !pages.Supported {
		return
	}
	a, _ := reports(t)
	small := a.Stats().Slots * 10 / 16
	seen := make(map[uintptr]int)
	var stale blockalloc.Block
	for i := range 3 * small {
		b := mustAllocate(t, a, 64, 1)
		slot := b.Addr() / (16 * pages.Size)
		if last, ok := seen[slot]; ok && i-last < small-1 {
			t.Fatalf("block %d is in the slot of block %d; there are %d slots", i, last, small)
		}
		seen[slot] = i
		mustFree(t, a, b)
		if i > 0 && !errors.Is(a.Free(stale), blockalloc.ErrDoubleFree) {
			t.Fatalf("the free of a block that was freed before is not found")
		}
		stale = b
	}
}

// TestFull: half of the slots have live blocks, and further blocks pass through until one is freed.
func TestFull(t *testing.T) {
	if !pages.Supported {
		return
	}
	inner := alloctrace.Wrap(new(blockalloc.Heap))
	a := newAllocator(t, inner, guard.Options{Rate: 1, Memory: 64 << 10})
	slots := a.Stats().Slots
	var blocks []blockalloc.Block
	for range slots {
		blocks = append(blocks, mustAllocate(t, a, 200, 8))
	}
	s := a.Stats()
	if s.LiveBlocks < 2 || s.LiveBlocks > int64(slots/2) || s.LiveBlocks+s.Full != int64(slots) || inner.Stats().LiveBlocks != s.Full {
		t.Errorf("%+v, and %v", s, inner.Stats())
	}
	guarded := s.LiveBlocks
	mustFree(t, a, blocks[0])
	if blocks[0] = mustAllocate(t, a, 200, 8); a.Stats().LiveBlocks != guarded {
		t.Errorf("after a free, %d blocks are guarded, want %d", a.Stats().LiveBlocks, guarded)
	}
	for _, b := range blocks {
		mustFree(t, a, b)
	}
	if s := a.Stats(); s.LiveBlocks != 0 || s.LiveBytes != 0 || inner.Stats().LiveBlocks != 0 {
		t.Errorf("in the end %+v, and %v", s, inner.Stats())
	}
}

// TestSetRate: guards are turned off and on while blocks are live.
func TestSetRate(t *testing.T) {
	inner := alloctrace.Wrap(new(blockalloc.Heap))
	a := newAllocator(t, inner, guard.Options{Rate: -1})
	var blocks []blockalloc.Block
	want := int64(0)
	for _, rate := range []int{0, 1, 0, 1} {
		if a.SetRate(rate); pages.Supported {
			want += int64(rate)
		}
		blocks = append(blocks, mustAllocate(t, a, 100, 1))
		if s := a.Stats(); s.LiveBlocks != want || inner.Stats().LiveBlocks != int64(len(blocks))-want {
			t.Errorf("at the rate %d: %+v, want %d guarded blocks", rate, s, want)
		}
	}
	for _, b := range blocks {
		mustFree(t, a, b)
	}
	for _, rate := range []int{-1, -1 << 31} {
		func() {
			defer func() {
				if text, _ := recover().(string); !strings.HasPrefix(text, "guard: Allocator.SetRate(-") {
					t.Errorf("SetRate(%d): panic %q", rate, text)
				}
			}()
			a.SetRate(rate)
		}()
	}
}

// TestInnerFails: where the inner allocator fails, panics or ends the goroutine, the block that was to be moved
// is what it was, and nothing else is live.
func TestInnerFails(t *testing.T) {
	if !pages.Supported {
		return
	}
	var mode string
	inner := alloctrace.Wrap(failing.If(new(blockalloc.Heap), func(c failing.Call) bool {
		switch mode {
		case "panic":
			panic("unlucky")
		case "goexit":
			runtime.Goexit()
		}
		return mode == "fail"
	}))
	a := newAllocator(t, inner, guard.Options{Rate: 1})
	try := func(b blockalloc.Block, size uintptr) (n blockalloc.Block, err error) {
		n, err = b, errors.New("it did not return")
		var done sync.WaitGroup
		done.Go(func() {
			defer func() { _ = recover() }()
			n, err = a.Reallocate(b, size)
		})
		done.Wait()
		return n, err
	}
	for _, m := range []string{"fail", "panic", "goexit"} {
		for _, guarded := range []bool{true, false} {
			a.SetRate(map[bool]int{true: 1, false: 0}[guarded])
			b := mustAllocate(t, a, 100, 4)
			b.Bytes()[0], b.Bytes()[99] = 7, 8
			a.SetRate(map[bool]int{true: 0, false: 1}[guarded]) // to the other side
			mode = m
			n, err := try(b, 200)
			mode = ""
			if err == nil || n != b || !a.Owns(b) || b.Bytes()[0] != 7 || b.Bytes()[99] != 8 {
				t.Errorf("%s, of a guarded block %t: %v, %v; want that %v stays", m, guarded, n, err, b)
			}
			if n, err = try(b, 200); err != nil || n.Bytes()[0] != 7 || n.Bytes()[99] != 8 {
				t.Errorf("%s, of a guarded block %t, and again: %v, %v", m, guarded, n, err)
			}
			if s := a.Stats(); (s.LiveBlocks == 1) == guarded {
				t.Errorf("%s: after the block has moved: %+v", m, s)
			}
			mustFree(t, a, n)
			if s := a.Stats(); s.LiveBlocks != 0 || inner.Stats().LiveBlocks != 0 {
				t.Errorf("%s: in the end %+v, and %v", m, s, inner.Stats())
			}
		}
	}
}

// TestDamageIsFreed: a block whose surroundings were overwritten is reported, and then it is gone.
func TestDamageIsFreed(t *testing.T) {
	if !pages.Supported {
		return
	}
	a, list := reports(t)
	b := atEnd(t, a, 100, false)
	accessor(pointer(b, 100), true)
	n, err := a.Reallocate(b, 150)
	if err != nil || len(*list) != 1 || (*list)[0].Kind != debug.Overrun || (*list)[0].Op != "Reallocate" {
		t.Errorf("Reallocate: %v, %v", err, *list)
	}
	if a.Owns(b) || !a.Owns(n) || a.Stats().LiveBlocks != 1 {
		t.Errorf("%+v", a.Stats())
	}
	mustFree(t, a, n)
}

// TestNoAllocations: a block that is not guarded makes no garbage, and neither does one that is.
func TestNoAllocations(t *testing.T) {
	for _, rate := range []int{0, 1, -1} {
		a := newAllocator(t, measure.NewInner(), guard.Options{Rate: rate})
		measure.WantAllocs(t, 0, func() {
			b, err := a.Allocate(blockalloc.BlockLayout(4096))
			if err != nil || a.Free(b) != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestCollected: an Allocator gives its address space back when it is collected, and keeps it as long as a
// guarded block is live.
func TestCollected(t *testing.T) {
	if !pages.Supported || measure.Race {
		return
	}
	for range 100 { // more than an address space of 32 bits, or the limit on mappings, would allow at once
		a := guard.New(blockalloc.Null{}, guard.Options{Rate: 1})
		if a.Stats().Slots == 0 {
			t.Fatal("no address space is left")
		}
		mustFree(t, a, mustAllocate(t, a, 100, 1))
		runtime.GC()
	}
	b := mustAllocate(t, guard.New(blockalloc.Null{}, guard.Options{Rate: 1}), 100, 1)
	for range 3 {
		runtime.GC()
	}
	b.Bytes()[0] = 1
}
