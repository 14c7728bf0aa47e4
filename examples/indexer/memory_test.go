package main

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// newMemory returns memory that the race detector sees, and checks in the end
// that all of it was freed and that nothing failed but what was made to.
func newMemory(t testing.TB) (*alloctrace.Proxy, *scarce) {
	inner := &scarce{Allocator: alloctest.New(t)}
	inner.left.Store(1 << 62)
	mem := alloctrace.Wrap(inner)
	t.Cleanup(func() {
		if failures := mem.Stats().Failures(); failures != inner.refused.Load() {
			t.Errorf("%d failures, want %d", failures, inner.refused.Load())
		}
	})
	return mem, inner
}

// scarce is an allocator that runs out of memory after some operations.
type scarce struct {
	blockalloc.Allocator
	left, refused atomic.Int64
}

func (s *scarce) take() error {
	if s.left.Add(-1) >= 0 {
		return nil
	}
	s.refused.Add(1)
	return fmt.Errorf("scarce: %w", blockalloc.ErrOutOfMemory)
}

func (s *scarce) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	if err := s.take(); err != nil {
		return blockalloc.Block{}, err
	}
	return s.Allocator.Allocate(l)
}

func (s *scarce) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	if err := s.take(); err != nil {
		return b, err
	}
	return s.Allocator.Reallocate(b, size)
}
