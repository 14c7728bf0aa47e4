package blockalloc_test

import (
	"errors"
	"fmt"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
)

var slabModelSteps = []blocktest.Step{
	{Name: "Trim", Do: func(s *blocktest.State) error {
		slab := s.Allocator.(*blockalloc.Slab)
		if err := slab.Trim(); err != nil {
			return err
		}
		if st := slab.Stats(); st.EmptyBlocks != 0 || len(s.Live) == 0 && st != (blockalloc.SlabStats{}) {
			return fmt.Errorf("with %d live blocks leaves %+v", len(s.Live), st)
		}
		return nil
	}},
	{Name: "Close", Do: func(s *blocktest.State) error {
		if len(s.Live) == 0 {
			return nil
		}
		if err := s.Allocator.(*blockalloc.Slab).Close(); !errors.Is(err, blockalloc.ErrLive) {
			return fmt.Errorf("with %d live blocks: error %v, want ErrLive", len(s.Live), err)
		}
		return nil
	}},
	{Name: "Find", Weight: 2, Do: findInSlab},
	{Name: "many", Do: manyInSlab},
}

// manyInSlab fills blocks of the parent's with slots of one size, and frees them in another order.
func manyInSlab(s *blocktest.State) error {
	slab := s.Allocator.(*blockalloc.Slab)
	l := blockalloc.Layout{Size: 1 + uintptr(s.IntN(512)), Align: 1}
	s.Logf("blocks of %v", l)
	var live []blockalloc.Block
	for len(live) < 40 {
		b, err := slab.Allocate(l)
		if errors.Is(err, blockalloc.ErrOutOfMemory) {
			break // the parent lends no more
		}
		if err != nil {
			return err
		}
		live = append(live, b)
	}
	if err := slabStats(slab, append(live[:len(live):len(live)], s.Live...)); err != nil {
		return err
	}
	var failed error
	for len(live) > 0 {
		i, last := s.IntN(len(live)), len(live)-1
		b := live[i]
		live[i], live = live[last], live[:last]
		if err := slab.Free(b); err != nil {
			failed = err
		}
	}
	return failed
}

// findInSlab asks for a byte of a live block, and frees what begins there if it is not the
// block.
func findInSlab(s *blocktest.State) error {
	if len(s.Live) == 0 {
		return nil
	}
	slab, b := s.Allocator.(*blockalloc.Slab), s.Live[s.IntN(len(s.Live))]
	offset := s.IntN(int(b.Size()))
	s.Logf("byte %d of %v", offset, b)
	slot := b.Size() <= 512 && b.Align() <= 512 // an eighth of the smallest Slab's blocks
	found, ok := slab.Find(unsafe.Add(b.Pointer(), offset))
	if ok {
		if found.Addr() != b.Addr() || found.Size() != b.Size() || found.Align() < b.Align() || !slab.Owns(found) {
			return fmt.Errorf("it is of %v, which is owned: %t", found, slab.Owns(found))
		}
	} else if slot {
		return errors.New("it is of no block")
	}
	if offset == 0 {
		return nil
	}
	inner, err := blockalloc.FromRaw(unsafe.Add(b.Pointer(), offset), blockalloc.Layout{Size: b.Size(), Align: 1})
	if err != nil {
		return err
	}
	err = slab.Free(inner)
	if !slot && errors.Is(err, blockalloc.ErrDoubleFree) { // such a block of the parent's was there before
		return nil
	}
	if !errors.Is(err, blockalloc.ErrNotOwned) {
		return fmt.Errorf("Free(%v): error %v, want ErrNotOwned", inner, err)
	}
	return nil
}

// slabStats holds a Slab's figures against what is live, and what its parent has lent if that
// counts it.
func slabStats(a blockalloc.Allocator, live []blockalloc.Block) error {
	slab := a.(*blockalloc.Slab)
	st := slab.Stats()
	var size int64
	for _, b := range live {
		size += int64(b.Size())
	}
	if int(st.LiveSlots+st.LargeBlocks) != len(live) || st.LiveSlotBytes+st.LargeBytes != size {
		return fmt.Errorf("%d blocks of %d bytes are live, but %+v", len(live), size, st)
	}
	if p, ok := slab.Parent().(*slabParent); ok && (int(st.Blocks+st.LargeBlocks) != p.blocks() || int(st.BlockBytes+st.LargeBytes) != p.size) {
		return fmt.Errorf("the parent has lent %d blocks of %d bytes, but %+v", p.blocks(), p.size, st)
	}
	return slabSpansAgree(slab, asSpans(live))
}

func slabConfig(c blocktest.Config) blocktest.Config {
	c.Steps, c.Check = slabModelSteps, slabStats
	return c
}

// countedSlab describes a Slab over a parent that counts, and that refuses to lend more than
// limit blocks if that is not zero.
func countedSlab(maxEmpty, limit int) blocktest.Config {
	return slabConfig(blocktest.Config{
		New: func(t testing.TB) blockalloc.Allocator {
			parent := newSlabParent(t)
			parent.limit = limit
			s := newSlab(t, parent, 4<<10)
			s.MaxEmpty = maxEmpty
			return s
		},
		MaxSize: 4 << 10,
		MaxLive: limit,
	})
}

func TestCountedSlabConforms(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ maxEmpty, limit int }{{0, 0}, {-1, 0}, {10, 0}, {0, 20}} {
		t.Run(fmt.Sprintf("MaxEmpty=%d,limit=%d", c.maxEmpty, c.limit), func(t *testing.T) { blocktest.Run(t, countedSlab(c.maxEmpty, c.limit)) })
	}
}

func FuzzSlab(f *testing.F) { blocktest.Fuzz(f, countedSlab(0, 20)) }
