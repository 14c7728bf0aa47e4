package blocktest_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
)

// frames is a Heap whose blocks belong to frames, without or with one defect. Push begins a
// frame, and Pop frees its blocks. Those of frames below can be freed only then.
type frames struct {
	blockalloc.Heap
	defect string
	blocks []blockalloc.Block
	below  []int // how many blocks there were at each Push
	popped int
}

func framesConfig(defect string) blocktest.Config {
	return blocktest.Config{
		New:            func(testing.TB) blockalloc.Allocator { return &frames{defect: defect} },
		MaxSize:        64 << 10,
		Zeroed:         true,
		SingleThreaded: true,
		Steps: []blocktest.Step{
			{Name: "Push", Weight: 2, Do: func(s *blocktest.State) error {
				f := s.Allocator.(*frames)
				s.Freeze(f.push())
				s.Logf("%d frames", len(f.below))
				return nil
			}},
			{Name: "Pop", Weight: 2, Do: func(s *blocktest.State) error {
				f := s.Allocator.(*frames)
				popped, err := f.pop()
				if f.defect == "frozen too many" {
					s.Freeze(len(s.Live) + 1)
				} else {
					s.Freeze(f.first())
				}
				if f.defect == "freed twice" {
					s.Freed(popped...)
				}
				s.Freed(popped...)
				return err
			}},
			{Name: "Peek", Do: func(s *blocktest.State) error {
				if len(s.Live) == 0 {
					return nil
				}
				if i := s.IntN(len(s.Live)); s.Allocator.(*frames).blocks[i] != s.Live[i] {
					return fmt.Errorf("block %d is %v, want %v", i, s.Allocator.(*frames).blocks[i], s.Live[i])
				}
				return nil
			}},
		},
		Check: func(a blockalloc.Allocator, live []blockalloc.Block) error {
			if n := a.(*frames).count(); n != len(live) {
				return fmt.Errorf("%d blocks are counted, want %d", n, len(live))
			}
			return nil
		},
	}
}

// first is how many blocks belong to frames below.
func (f *frames) first() int {
	if len(f.below) == 0 {
		return 0
	}
	return f.below[len(f.below)-1]
}

func (f *frames) push() int {
	f.below = append(f.below, len(f.blocks))
	return len(f.blocks)
}

var errThirdPop = errors.New("the third Pop fails")

// pop returns the blocks that it has freed.
func (f *frames) pop() ([]blockalloc.Block, error) {
	if len(f.below) == 0 {
		return nil, nil
	}
	first := f.first()
	popped := f.blocks[first:]
	f.blocks, f.below = f.blocks[:first:first], f.below[:len(f.below)-1]
	for i, b := range popped {
		if f.defect == "pop forgets a block" && i == 1 {
			continue
		}
		if err := f.Heap.Free(b); err != nil {
			return nil, err
		}
	}
	if f.popped++; f.defect == "pop fails" && f.popped == 3 {
		return popped, errThirdPop
	}
	return popped, nil
}

func (f *frames) count() int {
	if f.defect == "count stops" {
		return min(len(f.blocks), 5)
	}
	return len(f.blocks)
}

// find returns where b is among the blocks of the newest frame, -1 if it is not there.
func (f *frames) find(b blockalloc.Block) int {
	for i := len(f.blocks) - 1; i >= f.first(); i-- {
		if b.Is(f.blocks[i]) {
			return i
		}
	}
	return -1
}

func (f *frames) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	b, err := f.Heap.Allocate(l)
	if err == nil && !b.IsZero() {
		f.blocks = append(f.blocks, b)
	}
	return b, err
}

func (f *frames) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	i := f.find(b)
	if i < 0 && f.Heap.Owns(b) {
		return b, blockalloc.ErrNotOwned
	}
	n, err := f.Heap.Reallocate(b, size)
	if i < 0 || err != nil {
		return n, err
	}
	if n.Addr() != b.Addr() || n.IsZero() {
		f.remove(i)
		if !n.IsZero() {
			f.blocks = append(f.blocks, n)
		}
	} else {
		f.blocks[i] = n
	}
	return n, nil
}

func (f *frames) Free(b blockalloc.Block) error {
	i := f.find(b)
	if i < 0 && f.Heap.Owns(b) {
		return blockalloc.ErrNotOwned
	}
	if err := f.Heap.Free(b); err != nil || i < 0 {
		return err
	}
	f.remove(i)
	return nil
}

func (f *frames) remove(i int) {
	copy(f.blocks[i:], f.blocks[i+1:])
	f.blocks = f.blocks[:len(f.blocks)-1]
}
