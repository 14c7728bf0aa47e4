package blockalloc_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/shard/shardtest"
)

// fillBlocks allocates all slots of n blocks of 4 KiB, 512 bytes each.
func fillBlocks(t *testing.T, s *blockalloc.Slab, n int) []blockalloc.Block {
	t.Helper()
	var all []blockalloc.Block
	for range 8 * n {
		all = append(all, slabAllocate(t, s, 512))
	}
	return all
}

// TestSlabEmptyBlocksGoBack: all but MaxEmpty and the current one, at once, and those
// by Trim.
func TestSlabEmptyBlocksGoBack(t *testing.T) {
	shardtest.OneShard(t)
	for maxEmpty, kept := range map[int]int{0: 1, -1: 0, 3: 3} {
		parent := newSlabParent(t)
		s := newSlab(t, parent, 4<<10)
		s.MaxEmpty = maxEmpty
		all := fillBlocks(t, s, 10)
		if n := parent.blocks(); n != 10 {
			t.Fatalf("%d blocks for 80 slots of 512 bytes, want 10", n)
		}
		for i := range all { // one in each block is left
			if i%8 != 3 {
				slabFree(t, s, all[i])
			}
		}
		if n := parent.blocks(); n != 10 {
			t.Errorf("%d blocks with one live slot each, want 10", n)
		}
		if err := s.Trim(); err != nil || parent.blocks() != 10 {
			t.Errorf("Trim left %d blocks with one live slot each, want 10: %v", parent.blocks(), err)
		}
		for i := 3; i < len(all); i += 8 {
			slabFree(t, s, all[i])
		}
		if n := parent.blocks(); n != kept+1 {
			t.Errorf("MaxEmpty %d: %d blocks are kept, want %d and the current one", maxEmpty, n, kept)
		}
		if st := s.Stats(); st.EmptyBlocks != int64(kept+1) || st.Blocks != st.EmptyBlocks || st.FreeBytes != st.BlockBytes || st.LiveSlots != 0 {
			t.Errorf("MaxEmpty %d: %+v", maxEmpty, st)
		}
		asked := parent.allocates
		slabFree(t, s, fillBlocks(t, s, kept+1)...)
		if parent.allocates != asked {
			t.Errorf("MaxEmpty %d: %d blocks came from the parent while there were empty ones", maxEmpty, parent.allocates-asked)
		}
		if err := s.Trim(); err != nil || parent.blocks() != 0 {
			t.Errorf("Trim left %d blocks: %v", parent.blocks(), err)
		}
		if err := s.Free(all[0]); !errors.Is(err, blockalloc.ErrNotOwned) {
			t.Errorf("second Free after the block went back: error %v, want ErrNotOwned", err)
		}
		slabFree(t, s, fillBlocks(t, s, 2)...)
		closeSlab(t, s)
	}
}

// TestSlabFillsHoles: free slots of full blocks are used before new blocks, and those
// of the block that was listed first before others.
func TestSlabFillsHoles(t *testing.T) {
	shardtest.OneShard(t)
	parent := newSlabParent(t)
	s := newSlab(t, parent, 4<<10)
	all := fillBlocks(t, s, 10)
	want := make(map[uintptr]bool)
	for i := 0; i < len(all); i += 2 {
		slabFree(t, s, all[i])
		want[all[i].Addr()] = true
	}
	for i := 0; i < len(all); i += 2 {
		all[i] = slabAllocate(t, s, 512)
		if !want[all[i].Addr()] {
			t.Fatalf("%v is not one of the slots that were freed", all[i])
		}
		delete(want, all[i].Addr())
	}
	for _, i := range []int{30, 14, 53} {
		slabFree(t, s, all[i])
	}
	for _, i := range []int{30, 14, 53} {
		if b := slabAllocate(t, s, 512); b != all[i] {
			t.Errorf("Allocate = %v, want %v, whose block was freed into before others", b, all[i])
		}
	}
	if parent.allocates != 10 {
		t.Errorf("%d blocks were taken from the parent, want 10", parent.allocates)
	}
	slabFree(t, s, all...)
	closeSlab(t, s)
}

func TestSlabStats(t *testing.T) {
	shardtest.OneShard(t)
	parent := newSlabParent(t)
	parent.larger = 100
	s := newSlab(t, parent, 64<<10)
	var held []blockalloc.Block
	for range 1000 {
		held = append(held, slabAllocate(t, s, 70), slabAllocate(t, s, 3000))
	}
	held = append(held, slabAllocate(t, s, 10000), slabAllocate(t, s, 20000))
	const small, medium = 64 << 10 / 80, 64 << 10 / 3072 // slots in a block
	const blocks = 1000/small + 1 + 1000/medium + 1
	want := blockalloc.SlabStats{
		Blocks: blocks, BlockBytes: blocks * (64<<10 + 100), LiveSlots: 2000, LiveSlotBytes: 1000 * (80 + 3072),
		FreeBytes:   (1000/small+1)*small*80 + (1000/medium+1)*medium*3072 - 1000*(80+3072),
		LargeBlocks: 2, LargeBytes: 30200,
	}
	if got := s.Stats(); got != want {
		t.Errorf("Stats = %+v, want %+v", got, want)
	}
	slabFree(t, s, held...)
	got := s.Stats()
	if got.LiveSlots != 0 || got.LiveSlotBytes != 0 || got.LargeBlocks != 0 || got.LargeBytes != 0 || got.Blocks != got.EmptyBlocks {
		t.Errorf("when all is freed: %+v", got)
	}
	closeSlab(t, s)
}

func TestSlabClose(t *testing.T) {
	shardtest.OneShard(t)
	parent := newSlabParent(t)
	s := newSlab(t, parent, 4<<10)
	all := append(fillBlocks(t, s, 3), slabAllocate(t, s, 100))
	slabFree(t, s, all[:9]...)
	for range 2 {
		err := s.Close()
		if !errors.Is(err, blockalloc.ErrLive) || !strings.Contains(err.Error(), fmt.Sprintf("%d of them, %d bytes", 16, 15*512+112)) {
			t.Errorf("Close with live blocks: error %v, want ErrLive with 16 blocks", err)
		}
		again := slabAllocate(t, s, 512) // it stays open, with its empty block
		slabFree(t, s, again)
		for _, b := range all[9:] {
			if !s.Owns(b) {
				t.Fatalf("%v is lost by a Close that failed", b)
			}
		}
	}
	slabFree(t, s, all[9:]...)
	if err := s.Close(); err != nil || parent.blocks() != 0 {
		t.Fatalf("Close: %v, %d blocks are left", err, parent.blocks())
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Errorf("second Close: %v", err)
		}
		for _, size := range []uintptr{8, 512, 100 << 10} {
			if _, err := s.Allocate(blockalloc.Layout{Size: size, Align: 8}); !errors.Is(err, blockalloc.ErrClosed) {
				t.Errorf("Allocate after Close: error %v, want ErrClosed", err)
			}
		}
		if _, err := s.Allocate(blockalloc.Layout{Size: 8, Align: 3}); !errors.Is(err, blockalloc.ErrBadLayout) {
			t.Errorf("Allocate of a bad layout after Close: error %v, want ErrBadLayout", err)
		}
		if b, err := s.Allocate(blockalloc.Layout{Size: 0, Align: 8}); err != nil || !b.IsZero() {
			t.Errorf("Allocate of size zero after Close = %v, %v", b, err)
		}
		if err := s.Free(all[20]); !errors.Is(err, blockalloc.ErrNotOwned) {
			t.Errorf("Free after Close: error %v, want ErrNotOwned", err)
		}
		if err := s.Trim(); err != nil {
			t.Errorf("Trim after Close: %v", err)
		}
	}
	if parent.allocates != 4 || s.Stats() != (blockalloc.SlabStats{}) {
		t.Errorf("after Close the parent was asked %d times; %+v", parent.allocates, s.Stats())
	}
}

// TestSlabParentRefusesBlock: a block that the parent does not take back is kept, used
// again, and given back later.
func TestSlabParentRefusesBlock(t *testing.T) {
	shardtest.OneShard(t)
	parent := newSlabParent(t)
	parent.failFree = true
	s := newSlab(t, parent, 4<<10)
	s.MaxEmpty = -1
	slabFree(t, s, fillBlocks(t, s, 5)...) // which succeeds
	if st := s.Stats(); st.Blocks != 5 || st.EmptyBlocks != 5 {
		t.Errorf("after the parent refused: %+v, want 5 empty blocks", st)
	}
	if err := s.Trim(); !errors.Is(err, errSlabInjected) || !strings.Contains(err.Error(), "Slab.Trim") {
		t.Errorf("Trim: error %v, want the parent's", err)
	}
	all := fillBlocks(t, s, 5)
	if parent.allocates != 5 {
		t.Errorf("%d blocks were taken from the parent, want 5", parent.allocates)
	}
	slabFree(t, s, all...)
	if err := s.Free(all[0]); !errors.Is(err, blockalloc.ErrDoubleFree) {
		t.Errorf("second Free: error %v, want ErrDoubleFree", err)
	}
	for range 2 {
		if err := s.Close(); !errors.Is(err, errSlabInjected) || !strings.Contains(err.Error(), "Slab.Close") {
			t.Errorf("Close: error %v, want the parent's", err)
		}
		if _, err := s.Allocate(blockalloc.BlockLayout(8)); !errors.Is(err, blockalloc.ErrClosed) {
			t.Errorf("Allocate after that Close: error %v, want ErrClosed", err)
		}
	}
	parent.failFree = false
	closeSlab(t, s)
}

// TestSlabOutOfMemory: what the parent cannot give is first looked for in the Slab.
func TestSlabOutOfMemory(t *testing.T) {
	shardtest.OneShard(t)
	parent := newSlabParent(t)
	parent.limit = 3
	s := newSlab(t, parent, 4<<10)
	all := fillBlocks(t, s, 3)
	for _, size := range []uintptr{512, 16, 5000} {
		if _, err := s.Allocate(blockalloc.BlockLayout(16)); !errors.Is(err, blockalloc.ErrOutOfMemory) {
			t.Fatalf("Allocate of %d bytes: error %v, want ErrOutOfMemory", size, err)
		}
	}
	if n, err := s.Reallocate(all[7], 16); !errors.Is(err, blockalloc.ErrOutOfMemory) || n != all[7] || !s.Owns(n) {
		t.Errorf("Reallocate = %v, %v; want the block as it was and ErrOutOfMemory", n, err)
	}
	slabFree(t, s, all[9])
	all[9] = slabAllocate(t, s, 512)
	slabFree(t, s, all[:8]...)                // one empty block: it is kept, or current
	other := slabAllocate(t, s, 16)           // and becomes one of another class
	slabFree(t, s, other)                     // which is current then
	slabFree(t, s, slabAllocate(t, s, 5000))  // the parent serves this with the same memory
	slabFree(t, s, fillBlocks(t, s, 1)...)    // and that again
	grown, err := s.Reallocate(all[8], 3<<10) // and that
	if err != nil {
		t.Fatal(err)
	}
	slabFree(t, s, grown)
	slabFree(t, s, all[9:]...)
	closeSlab(t, s)
}

// TestSlabFailureAtEveryAllocation has the parent fail at each of its allocations of a
// scenario: one operation fails, and nothing is lost.
func TestSlabFailureAtEveryAllocation(t *testing.T) {
	shardtest.OneShard(t)
	for failAt := 1; ; failAt++ {
		parent := newSlabParent(t)
		parent.failAt = failAt
		s := newSlab(t, parent, 4<<10)
		failed := 0
		check := func(err error) bool {
			if err != nil && !errors.Is(err, errSlabInjected) {
				t.Fatalf("failure %d: error %v", failAt, err)
			}
			if err != nil {
				failed++
			}
			return err == nil
		}
		var held []blockalloc.Block
		for i := range 64 {
			b, err := s.Allocate(blockalloc.Layout{Size: uintptr(1 + i*17%512), Align: 8})
			if check(err) {
				b.Bytes()[0] = byte(i)
				held = append(held, b)
			}
		}
		for i, b := range held {
			mark := b.Bytes()[0]
			n, err := s.Reallocate(b, uintptr(1+i*311%2000))
			if !check(err) && n != b {
				t.Fatalf("failure %d: Reallocate(%v) = %v, %v", failAt, b, n, err)
			}
			if n.Bytes()[0] != mark || !s.Owns(n) {
				t.Fatalf("failure %d: Reallocate(%v) = %v, %v lost it", failAt, b, n, err)
			}
			held[i] = n
		}
		if st := s.Stats(); int(st.LiveSlots+st.LargeBlocks) != len(held) {
			t.Fatalf("failure %d: %d blocks are held, but %+v", failAt, len(held), st)
		}
		slabFree(t, s, held...)
		closeSlab(t, s)
		if failed == 0 {
			if failAt < 20 {
				t.Errorf("the scenario has only %d allocations", failAt-1)
			}
			return
		}
		if failed != 1 {
			t.Errorf("failure %d of the parent's made %d operations fail", failAt, failed)
		}
	}
}
