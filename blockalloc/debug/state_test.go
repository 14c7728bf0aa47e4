package debug_test

import (
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
)

// kindOf returns the kind of the one report in err, or -1.
func kindOf(err error) debug.Kind {
	if all := reportsOf(err); len(all) == 1 {
		return all[0].Kind
	}
	return -1
}

// TestHistory: of blocks that were given back, the last 1024 are known, and of
// several at one address the last.
func TestHistory(t *testing.T) {
	d := newAllocator(t, new(blockalloc.Heap), debug.Options{Quarantine: -1})
	var blocks []blockalloc.Block
	for range 3000 {
		blocks = append(blocks, mustAllocate(t, d, 8, 8))
	}
	for _, b := range blocks {
		mustFree(t, d, b)
	}
	for i, b := range blocks {
		want := debug.Foreign
		if i >= len(blocks)-1024 {
			want = debug.DoubleFree
		}
		if got := kindOf(d.Free(b)); got != want {
			t.Fatalf("second free of block %d of %d is said to be a %v, want %v", i, len(blocks), got, want)
		}
		if err := d.Fault(b.Addr()); err != nil {
			t.Fatalf("Fault in memory without guards: %v", err)
		}
	}

	d = newAllocator(t, newFreeList(t, new(blockalloc.Heap), blockalloc.BlockLayout(256), 1), debug.Options{Quarantine: -1})
	for size := uintptr(10); size < 20; size++ {
		b := mustAllocate(t, d, size, 8)
		mustFree(t, d, b)
		err := d.Free(b)
		var r *debug.Report
		if !errors.As(err, &r) || r.Kind != debug.DoubleFree || r.Block.Layout.Size != size {
			t.Errorf("second free of %v: %v", b, err)
		}
	}
}

// TestPastTheEnd: where a block ends is not inside it.
func TestPastTheEnd(t *testing.T) {
	d := newAllocator(t, new(roomy), debug.Options{})
	b := mustAllocate(t, d, 64, 8)
	for offset, want := range map[int]debug.Kind{1: debug.Interior, 63: debug.Interior, 64: debug.Foreign, -1: debug.Foreign} {
		part, err := at(b, offset)
		if err != nil {
			t.Fatal(err)
		}
		if got := kindOf(d.Free(part)); got != want {
			t.Errorf("free of what begins at byte %d is said to be a %v, want %v", offset, got, want)
		}
	}
	mustFree(t, d, b)
}

// TestLargeBlockLeavesOthers: what the quarantine cannot hold pushes nothing
// out.
func TestLargeBlockLeavesOthers(t *testing.T) {
	d := newAllocator(t, new(blockalloc.Heap), debug.Options{Quarantine: 350})
	for range 3 {
		mustFree(t, d, mustAllocate(t, d, 100, 1))
	}
	mustFree(t, d, mustAllocate(t, d, 351, 1))
	if s := d.Stats(); s.QuarantinedBlocks != 3 || s.QuarantinedBytes != 300 {
		t.Errorf("%+v, want 3 blocks of 100 bytes in quarantine", s)
	}
}

// TestCheckTakesOut of quarantine what was written to.
func TestCheckTakesOut(t *testing.T) {
	d := debug.New(new(blockalloc.Heap), debug.Options{})
	var blocks []blockalloc.Block
	for range 5 {
		b := mustAllocate(t, d, 100, 1)
		mustFree(t, d, b)
		blocks = append(blocks, b)
	}
	blocks[2].Bytes()[7] = 1
	if got := kindOf(d.Check()); got != debug.UseAfterFree {
		t.Errorf("Check finds a %v", got)
	}
	if s := d.Stats(); s.QuarantinedBlocks != 4 || s.QuarantinedBytes != 400 || s.WithheldBlocks != 1 {
		t.Errorf("%+v, want 4 blocks of 100 bytes in quarantine and 1 withheld", s)
	}
	if got := kindOf(d.Free(blocks[2])); got != debug.DoubleFree {
		t.Errorf("second free of a withheld block is said to be a %v", got)
	}
	if got := kindOf(d.Close()); got != debug.UseAfterFree {
		t.Errorf("Close returns a %v", got)
	}
	mustClose(t, d)
}

// TestCloseReportsAll: what is live, damaged, and was written to after it was freed;
// blocks in the order of their allocation.
func TestCloseReportsAll(t *testing.T) {
	d := debug.New(new(blockalloc.Heap), debug.Options{})
	gone := mustAllocate(t, d, 8, 8)
	mustFree(t, d, gone)
	gone.Bytes()[0] = 1
	var blocks []blockalloc.Block
	var want []uintptr
	for range 10 {
		b := mustAllocate(t, d, 8, 8)
		beyond(b, 8, 1)[0] = 1
		blocks, want = append(blocks, b), append(want, b.Addr())
	}
	err := d.Close()
	if !errors.Is(err, blockalloc.ErrLive) || !errors.Is(err, blockalloc.ErrUseAfterFree) || !errors.Is(err, blockalloc.ErrOverrun) {
		t.Errorf("Close: %v", err)
	}
	var got []uintptr
	for _, r := range reportsOf(err) {
		if r.Kind == debug.Overrun {
			got = append(got, r.Block.Addr)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("the blocks %x are damaged, want %x", got, want)
	}
	for _, b := range blocks {
		if err := d.Free(b); !errors.Is(err, blockalloc.ErrOverrun) || !d.Owns(b) {
			t.Errorf("Free of a damaged block: %v", err)
		}
		mustFree(t, d, b)
	}
	if err := d.Close(); kindOf(err) != debug.UseAfterFree {
		t.Errorf("Close: %v", err)
	}
	mustClose(t, d)
}

// slow is a Heap whose Free waits.
type slow struct {
	blockalloc.Heap
	entered, leave chan struct{}
}

func (s *slow) Free(b blockalloc.Block) error {
	close(s.entered)
	<-s.leave
	return s.Heap.Free(b)
}

// TestCloseWaits for a block that is on its way to the parent.
func TestCloseWaits(t *testing.T) {
	parent := &slow{entered: make(chan struct{}), leave: make(chan struct{})}
	d := debug.New(parent, debug.Options{Quarantine: -1})
	b := mustAllocate(t, d, 8, 8)
	var closed atomic.Bool
	var both sync.WaitGroup
	both.Go(func() { mustFree(t, d, b) })
	<-parent.entered
	both.Go(func() {
		mustClose(t, d)
		closed.Store(true)
	})
	for range 10_000 {
		runtime.Gosched()
	}
	if closed.Load() {
		t.Error("Close returned while the parent had not taken the block back")
	}
	close(parent.leave)
	both.Wait()
	mustClose(t, d)
}

// TestStatsBesideClose: nothing but the race detector looks at this.
func TestStatsBesideClose(t *testing.T) {
	for range 20 {
		d := debug.New(new(blockalloc.Heap), debug.Options{})
		for range 10 {
			b := mustAllocate(t, d, 8, 8)
			mustFree(t, d, b)
			b.Bytes()[0] = 1
		}
		var both sync.WaitGroup
		both.Go(func() {
			for range 100 {
				if s := d.Stats(); s.LiveBlocks != 0 || s.WithheldBlocks > 10 {
					t.Errorf("%+v", s)
				}
				_ = d.Check()
			}
		})
		if err := d.Close(); !errors.Is(err, blockalloc.ErrUseAfterFree) {
			t.Errorf("Close: %v", err)
		}
		both.Wait()
		mustClose(t, d)
	}
}
