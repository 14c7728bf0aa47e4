package blocktest

import (
	"errors"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
)

type closer interface{ Close() error }

// closeAll closes a, and then the allocators below it.
func closeAll(a blockalloc.Allocator) error {
	if c, ok := a.(closer); ok {
		if err := c.Close(); err != nil {
			return err
		}
	}
	for inner := range blockalloc.Inner(a) {
		if err := closeAll(inner); err != nil {
			return err
		}
	}
	return nil
}

// closing resolves CloseDefault as far as that goes without a trial.
func (s suite) closing(a blockalloc.Allocator) Closing {
	if s.Closing != CloseDefault {
		return s.Closing
	}
	switch a.(type) {
	case interface{ Unwrap() blockalloc.Allocator }, interface{ Unwrap() []blockalloc.Allocator }:
		return CloseDefault
	}
	if s.Arena {
		return CloseFrees
	}
	return CloseRefuses
}

func (s suite) close(t *testing.T) {
	if _, ok := s.New(t).(closer); !ok {
		t.Log("the allocator has no Close")
		return
	}
	t.Run("Unused", func(t *testing.T) {
		a := s.New(t)
		if err := a.(closer).Close(); err != nil {
			t.Fatalf("Close of an allocator that was not used: %v", err)
		}
		s.checkClosed(t, a)
	})
	t.Run("Freed", func(t *testing.T) {
		a := s.New(t)
		b := allocate(t, a, blockalloc.BlockLayout(s.size))
		free(t, a, b)
		if err := a.(closer).Close(); err != nil {
			t.Fatalf("Close with all blocks freed: %v", err)
		}
		s.checkClosed(t, a, b)
	})
	t.Run("Live", s.closeLive)
}

func (s suite) closeLive(t *testing.T) {
	a := s.New(t)
	var blocks []blockalloc.Block
	for i := range min(3, s.MaxLive-1) {
		b := allocate(t, a, blockalloc.BlockLayout(s.size))
		fill(b, b.Size(), i)
		blocks = append(blocks, b)
	}
	kind := s.closing(a)
	err := a.(closer).Close()
	if kind == CloseFrees || kind == CloseDefault && s.Arena && err == nil {
		if err != nil {
			t.Fatalf("Close: %v, want the live blocks freed and no error", err)
		}
		s.checkClosed(t, a, blocks...)
		return
	}
	if !errors.Is(err, blockalloc.ErrLive) {
		t.Fatalf("Close with %d blocks live: error %v, want ErrLive", len(blocks), err)
	}
	intact(t, blocks, 0)
	s.accounts(t, a, "after Close refused", blocks...)
	more, err := a.Allocate(blockalloc.BlockLayout(s.size))
	switch {
	case err == nil && kind != CloseEnds:
		check(t, more, blockalloc.BlockLayout(s.size))
		fill(more, more.Size(), len(blocks))
		blocks = append(blocks, more)
		intact(t, blocks, 0)
	case !errors.Is(err, blockalloc.ErrClosed) || !more.IsZero() || kind == CloseRefuses:
		t.Fatalf("Allocate after Close returned ErrLive = %v, %v", more, err)
	}
	if err := a.(closer).Close(); !errors.Is(err, blockalloc.ErrLive) {
		t.Errorf("second Close with %d blocks live: error %v, want ErrLive", len(blocks), err)
	}
	intact(t, blocks, 0)
	for i := len(blocks) - 1; i >= 0; i-- {
		if o, ok := blockalloc.OwnerOf(a); ok && !o.Owns(blocks[i]) {
			t.Errorf("after Close refused, Owns(%v) = false", blocks[i])
		}
		free(t, a, blocks[i])
	}
	if err := a.(closer).Close(); err != nil {
		t.Fatalf("Close after all blocks were freed: %v", err)
	}
	s.checkClosed(t, a, blocks...)
}

// checkClosed checks an allocator whose Close has returned nil. The blocks were
// live once.
func (s suite) checkClosed(t *testing.T, a blockalloc.Allocator, blocks ...blockalloc.Block) {
	t.Helper()
	if b, err := a.Allocate(blockalloc.BlockLayout(s.size)); !errors.Is(err, blockalloc.ErrClosed) || !b.IsZero() {
		t.Errorf("Allocate after Close = %v, %v; want ErrClosed", b, err)
	}
	if kind := s.closing(a); kind == CloseRefuses || kind == CloseFrees {
		if b, err := a.Allocate(blockalloc.BlockLayout(999)); !errors.Is(err, blockalloc.ErrBadLayout) || !b.IsZero() {
			t.Errorf("Allocate of a bad layout after Close = %v, %v; want ErrBadLayout", b, err)
		}
		if b, err := a.Allocate(layout(0, 8)); err != nil || !b.IsZero() {
			t.Errorf("Allocate of size 0 after Close = %v, %v; want the empty block", b, err)
		}
	}
	free(t, a, blockalloc.Block{})
	is := func(err error) bool { return notLive(err) || errors.Is(err, blockalloc.ErrClosed) }
	o, isOwner := blockalloc.OwnerOf(a)
	for _, b := range blocks {
		if isOwner && o.Owns(b) {
			t.Errorf("after Close, Owns(%v) = true", b)
		}
		if n, err := a.Reallocate(b, 2*b.Size()); !is(err) || n != b {
			t.Errorf("Reallocate(%v, %d) after Close = %v, %v; want the block, and ErrDoubleFree, ErrNotOwned or ErrClosed", b, 2*b.Size(), n, err)
		}
		if err := a.Free(b); !is(err) {
			t.Errorf("Free(%v) after Close: error %v, want ErrDoubleFree, ErrNotOwned or ErrClosed", b, err)
		}
	}
	s.accounts(t, a, "after Close")
	if err := a.(closer).Close(); err != nil {
		t.Errorf("second Close: %v, want nil", err)
	}
}

// concurrentClose closes while other goroutines allocate and free.
func (s suite) concurrentClose(t *testing.T) {
	a := s.New(t)
	if _, ok := a.(closer); !ok {
		t.Log("the allocator has no Close")
		return
	}
	if s.closing(a) == CloseFrees || s.Arena {
		t.Log("Close may free live blocks: nobody may use them meanwhile")
		return
	}
	for range 16 {
		s.closeBesideOthers(t, s.New(t))
	}
}

// closeBesideOthers does that first with a block that is live throughout, so that Close
// is refused, and then without.
func (s suite) closeBesideOthers(t *testing.T, a blockalloc.Allocator) {
	c, kind := a.(closer), s.closing(a)
	l := blockalloc.BlockLayout(s.size)
	held := allocate(t, a, l)
	fill(held, held.Size(), 1)
	work := func(seed int, canClose bool) {
		for i := range 30 {
			b, err := a.Allocate(l)
			if err != nil {
				if !errors.Is(err, blockalloc.ErrClosed) || kind == CloseRefuses && !canClose {
					t.Errorf("Allocate beside Close: %v", err)
				}
				runtime.Gosched()
				continue
			}
			fill(b, b.Size(), seed+i)
			runtime.Gosched()
			release(t, a, filledBlock{b, b.Size(), seed + i})
		}
	}
	for _, canClose := range []bool{false, true} {
		if canClose {
			release(t, a, filledBlock{held, held.Size(), 1})
		}
		var workers, closers sync.WaitGroup
		var done atomic.Bool
		for w := range max(1, min(4, s.MaxLive-1)) {
			workers.Go(func() { work(1000*w, canClose) })
		}
		closers.Go(func() {
			for !done.Load() {
				if err := c.Close(); err != nil && !errors.Is(err, blockalloc.ErrLive) || err == nil && !canClose {
					t.Errorf("Close beside others that allocate: error %v", err)
				}
				runtime.Gosched()
			}
		})
		workers.Wait()
		done.Store(true)
		closers.Wait()
	}
	if err := c.Close(); err != nil {
		t.Fatalf("Close after all blocks were freed: %v", err)
	}
	s.checkClosed(t, a)
}
