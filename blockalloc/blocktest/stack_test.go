package blocktest_test

import (
	"fmt"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
)

// stack is an arena, the smallest that conforms, or with one defect. It hands out a
// piece of its parent's memory from start to end, and gets it back newest first.
type stack struct {
	parent blockalloc.Allocator
	mem    blockalloc.Block
	used   uintptr // bytes, from the start of mem
	blocks []stacked
	closed bool
	defect string
}

type stacked struct {
	blockalloc.Block
	mark  uintptr // what was used before it and its padding
	freed bool
}

const stackSize = 64<<10 + 7

// newStack returns an error that wraps the parent's.
func newStack(parent blockalloc.Allocator, defect string) (*stack, error) {
	mem, err := parent.Allocate(blockalloc.Layout{Size: stackSize, Align: 4 << 10})
	if err != nil {
		return nil, fmt.Errorf("newStack: %w", err)
	}
	if defect == "constructor leaks" {
		if second, err := parent.Allocate(blockalloc.BlockLayout(64)); err != nil {
			return nil, err
		} else if err := parent.Free(second); err != nil {
			return nil, err
		}
	}
	return &stack{parent: parent, mem: mem, defect: defect}, nil
}

// stackConfig describes a stack. It promises, among others, 16 pages in 64 KiB, each at
// a multiple of its size.
func stackConfig(defect string) blocktest.Config {
	return blocktest.Config{
		NewOver: func(_ testing.TB, parent blockalloc.Allocator) (blockalloc.Allocator, error) {
			s, err := newStack(parent, defect)
			if err != nil {
				return nil, err
			}
			return s, nil
		},
		MaxSize:        4 << 10,
		MaxLive:        16,
		Bounded:        true,
		Arena:          true,
		Capacity:       stackSize,
		SingleThreaded: true,
	}
}

func (s *stack) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	if err := l.Check(); err != nil || l.Size == 0 {
		return blockalloc.Block{}, err
	}
	if s.closed {
		return blockalloc.Block{}, blockalloc.ErrClosed
	}
	at := (s.mem.Addr()+s.used+l.Align-1)&^(l.Align-1) - s.mem.Addr()
	if at+l.Size > stackSize || s.defect == "last byte" && at+l.Size == stackSize {
		return blockalloc.Block{}, blockalloc.ErrOutOfMemory
	}
	b, err := blockalloc.NewBlock(unsafe.Add(s.mem.Pointer(), at), l.Size, l)
	if err != nil {
		return blockalloc.Block{}, err
	}
	if l.Zeroed && s.defect != "ignores Zeroed" {
		clear(b.Bytes())
	}
	s.blocks = append(s.blocks, stacked{b, s.used, false})
	s.used = at + l.Size
	return b, nil
}

// find returns where the live block b is, or why there is none.
func (s *stack) find(b blockalloc.Block) (int, error) {
	for i, e := range s.blocks {
		if !e.freed && b.Is(e.Block) {
			return i, nil
		}
	}
	return 0, blockalloc.ErrNotOwned
}

func (s *stack) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	if b.IsZero() {
		return b, blockalloc.ErrBadLayout
	}
	i, err := s.find(b)
	if err != nil {
		return b, err
	}
	l := b.Layout()
	l.Size = size
	if err := l.Check(); err != nil {
		return b, err
	}
	if size == 0 {
		return blockalloc.Block{}, s.Free(b)
	}
	if newest := i == len(s.blocks)-1; newest {
		at := b.Addr() - s.mem.Addr()
		if at+size > stackSize || s.defect == "last byte of a growing block" && size > b.Size() && at+size == stackSize {
			return b, blockalloc.ErrOutOfMemory
		}
		n, err := blockalloc.NewBlock(b.Pointer(), size, l)
		if err != nil {
			return b, err
		}
		if l.Zeroed && size > b.Size() && s.defect != "grows into dirty memory" {
			clear(n.Bytes()[b.Size():])
		}
		s.blocks[i].Block = n
		if s.used = at + size; s.defect == "shrinks too far" && size < b.Size() {
			s.used = at + size/2
		}
		return n, nil
	}
	n, err := s.Allocate(l)
	if err != nil {
		return b, err
	}
	if s.defect == "overruns when shrinking" {
		copy(unsafe.Slice((*byte)(n.Pointer()), b.Size()), b.Bytes())
	}
	copy(n.Bytes(), b.Bytes())
	return n, s.Free(b)
}

func (s *stack) Free(b blockalloc.Block) error {
	if b.IsZero() {
		return nil
	}
	i, err := s.find(b)
	if err != nil {
		return err
	}
	s.blocks[i].freed = true
	for last := len(s.blocks) - 1; last >= 0 && s.blocks[last].freed; last-- {
		if s.used = s.blocks[last].mark; s.defect == "padding is lost" {
			s.used = s.blocks[last].Addr() - s.mem.Addr()
		}
		s.blocks = s.blocks[:last]
	}
	return nil
}

func (s *stack) Owns(b blockalloc.Block) bool {
	if s.defect == "end is owned" && b.Addr() == s.mem.Addr()+stackSize {
		return true
	}
	_, err := s.find(b)
	return err == nil
}

// Close frees what is live.
func (s *stack) Close() error {
	if s.closed {
		return nil
	}
	switch s.defect {
	case "stays open":
		return nil
	case "refuses to close":
		if len(s.blocks) > 0 {
			return blockalloc.ErrLive
		}
	case "forgets when close fails":
		s.closed = true
	}
	if s.defect != "keeps its memory" {
		if err := s.parent.Free(s.mem); err != nil {
			return fmt.Errorf("stack.Close: %w", err)
		}
	}
	s.closed = true
	s.blocks = nil
	return nil
}
