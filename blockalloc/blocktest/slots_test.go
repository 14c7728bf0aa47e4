package blocktest_test

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
)

// slots is a free list of uniform blocks, the smallest that conforms, or with one
// defect. Several goroutines may use it at once.
type slots struct {
	parent blockalloc.Allocator
	mem    blockalloc.Block
	defect string

	mu     sync.Mutex
	free   []int
	live   [slotCount]blockalloc.Block
	count  int
	bytes  int64
	closed bool
	inside atomic.Int64 // goroutines in Allocate or Free
}

var doubleFrees atomic.Int64 // of all slots

const (
	slotSize  = 1 << 10
	slotCount = 64
)

// newSlots returns an error that wraps the parent's.
func newSlots(parent blockalloc.Allocator, defect string) (*slots, error) {
	mem, err := parent.Allocate(blockalloc.Layout{Size: slotSize * slotCount, Align: slotSize})
	if err != nil {
		return nil, fmt.Errorf("newSlots: %w", err)
	}
	s := &slots{parent: parent, mem: mem, defect: defect}
	for i := range slotCount {
		s.free = append(s.free, slotCount-1-i)
	}
	return s, nil
}

func slotsConfig(defect string) blocktest.Config {
	return blocktest.Config{
		NewOver: func(_ testing.TB, parent blockalloc.Allocator) (blockalloc.Allocator, error) {
			s, err := newSlots(parent, defect)
			if err != nil {
				return nil, err
			}
			return s, nil
		},
		MaxSize:   slotSize,
		MaxLive:   slotCount,
		Bounded:   true,
		Zeroed:    true,
		LiveBytes: func(a blockalloc.Allocator) int64 { return a.(*slots).liveBytes() },
	}
}

func (s *slots) liveBytes() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.bytes
}

// yield lets others in where a defect has left a gap.
func (s *slots) yield(defect string) {
	if s.defect == defect {
		s.mu.Unlock()
		for range 8 {
			runtime.Gosched()
		}
		s.mu.Lock()
	}
}

func (s *slots) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	if err := l.Check(); err != nil || l.Size == 0 {
		return blockalloc.Block{}, err
	}
	if l.Size > slotSize {
		return blockalloc.Block{}, blockalloc.ErrOutOfMemory
	}
	if l.Align > slotSize {
		return blockalloc.Block{}, blockalloc.ErrUnsupportedAlign
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return blockalloc.Block{}, blockalloc.ErrClosed
	}
	if len(s.free) == 0 {
		return blockalloc.Block{}, blockalloc.ErrOutOfMemory
	}
	last := len(s.free) - 1
	at := s.free[last]
	if s.defect == "last slot twice" && last == 0 {
		s.yield(s.defect)
	}
	s.yield("slot twice")
	s.free = s.free[:min(last, len(s.free))]
	b, err := blockalloc.NewBlock(unsafe.Add(s.mem.Pointer(), at*slotSize), slotSize, l)
	if err != nil {
		return blockalloc.Block{}, err
	}
	switch s.defect {
	case "not zeroed again":
	case "slack is not zeroed":
		clear(b.Bytes()[:l.Size])
	default:
		clear(b.Bytes())
	}
	s.live[at] = b
	s.count++
	s.bytes += slotSize
	return b, nil
}

// find returns the slot of the live block b, or why there is none.
func (s *slots) find(b blockalloc.Block) (int, error) {
	offset := b.Addr() - s.mem.Addr()
	if offset >= slotSize*slotCount {
		return 0, blockalloc.ErrNotOwned
	}
	at := int(offset / slotSize)
	switch {
	case s.live[at].IsZero():
		return 0, blockalloc.ErrDoubleFree
	case s.defect == "wants the granted size" && b.Size() != slotSize:
		return 0, blockalloc.ErrNotOwned
	case s.defect == "interior" || b.Is(s.live[at]):
		return at, nil
	}
	return 0, blockalloc.ErrNotOwned
}

func (s *slots) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	if b.IsZero() {
		return b, blockalloc.ErrBadLayout
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	at, err := s.find(b)
	if err != nil {
		return b, err
	}
	l := b.Layout()
	l.Size = size
	if s.defect == "forgets Zeroed" {
		l.Zeroed = false
	}
	if err := l.Check(); err != nil {
		return b, err
	}
	switch {
	case size > slotSize:
		if s.defect == "loses the block" {
			s.release(at)
		}
		if s.defect == "counts failures" {
			s.bytes -= slotSize
		}
		return b, blockalloc.ErrOutOfMemory
	case size == 0:
		if s.defect == "slot is lost" {
			s.live[at], s.count, s.bytes = blockalloc.Block{}, s.count-1, s.bytes-slotSize
			return blockalloc.Block{}, nil
		}
		s.release(at)
		return blockalloc.Block{}, nil
	}
	if s.defect == "stays raw" && size == b.Size() {
		return b, nil
	}
	n, err := blockalloc.NewBlock(b.Pointer(), slotSize, l)
	if err == nil {
		if l.Zeroed && s.defect != "slack is dirty" {
			clear(n.Bytes()[b.Size():]) // it was used, if b is of a size that was asked for
		}
		s.live[at] = n
	}
	return n, err
}

func (s *slots) release(at int) {
	s.live[at] = blockalloc.Block{}
	s.free = append(s.free, at)
	s.count--
	s.bytes -= slotSize
}

func (s *slots) Free(b blockalloc.Block) error {
	if b.IsZero() {
		return nil
	}
	others := s.inside.Add(1) > 1
	defer s.inside.Add(-1)
	s.mu.Lock()
	defer s.mu.Unlock()
	at, err := s.find(b)
	if errors.Is(err, blockalloc.ErrDoubleFree) {
		switch {
		case s.defect == "one double free in 30" && doubleFrees.Add(1)%30 == 0:
			return nil
		case s.defect == "live below zero":
			s.bytes -= slotSize
		}
	}
	if err != nil {
		return err
	}
	if s.defect == "counts what was given" {
		s.bytes += slotSize - int64(b.Size())
	}
	s.yield("two frees")
	s.yield("slot is lost beside others")
	s.release(at)
	if s.defect == "slot is lost beside others" && others {
		s.free = s.free[:len(s.free)-1]
	}
	return nil
}

func (s *slots) Owns(b blockalloc.Block) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, err := s.find(b)
	return err == nil && !b.IsZero()
}

func (s *slots) Find(p unsafe.Pointer) (blockalloc.Block, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	offset := uintptr(p) - s.mem.Addr()
	if s.defect == "finds past the end" && offset%slotSize == 0 {
		offset--
	}
	if offset >= slotSize*slotCount || s.defect == "finds no interior" && offset%slotSize != 0 {
		return blockalloc.Block{}, false
	}
	at := offset / slotSize
	b := s.live[at]
	if s.defect == "finds free slots" || s.defect == "finds without the request" && !b.IsZero() {
		b, _ = blockalloc.NewBlock(unsafe.Add(s.mem.Pointer(), at*slotSize), slotSize, blockalloc.Layout{Size: slotSize, Align: max(1, b.Align())})
	}
	return b, !b.IsZero()
}

// Close refuses while blocks are live.
func (s *slots) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	if s.count > 0 && s.defect != "closes with live blocks" {
		if s.defect == "refuses and closes" {
			s.closed = true
		}
		return blockalloc.ErrLive
	}
	s.yield("closes late")
	if s.defect != "keeps its memory" {
		if err := s.parent.Free(s.mem); err != nil {
			return fmt.Errorf("slots.Close: %w", err)
		}
	}
	s.closed = true
	return nil
}
