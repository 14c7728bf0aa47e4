package main

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// A meter knows the most bytes of an allocator that were ever live: not less at any moment, for it counts before it allocates
// and after it has freed.
type meter struct {
	blockalloc.Allocator
	live, most atomic.Int64
}

func (m *meter) add(n int64) {
	for live := m.live.Add(n); ; {
		most := m.most.Load()
		if live <= most || m.most.CompareAndSwap(most, live) {
			return
		}
	}
}

func (m *meter) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	m.add(int64(l.Size))
	b, err := m.Allocator.Allocate(l)
	m.add(int64(b.Size()) - int64(l.Size))
	return b, err
}

func (m *meter) Free(b blockalloc.Block) error {
	err := m.Allocator.Free(b)
	if err == nil {
		m.add(-int64(b.Size()))
	}
	return err
}

func (m *meter) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	m.add(int64(size))
	n, err := m.Allocator.Reallocate(b, size)
	m.add(int64(n.Size()) - int64(b.Size()) - int64(size))
	return n, err
}

// newMemory returns memory that checks in the end that all of it was freed, that no more than limit bytes were ever live, and
// that nothing has failed: what the limit refuses is no failure.
func newMemory(t testing.TB, limit int64) (memory, *alloctrace.Proxy) {
	m := &meter{Allocator: alloctest.New(t)}
	proxy := alloctrace.Wrap(m)
	t.Cleanup(func() {
		if most := m.most.Load(); most > limit || most == 0 {
			t.Errorf("%d bytes were live, the limit is %d", most, limit)
		}
		if s := proxy.Stats(); s.Failures() != 0 || s.LiveBlocks != 0 {
			t.Errorf("in the end %v", s)
		}
	})
	return observed(proxy, limit), proxy
}

// TestGoHeap: memory for comparison is aligned, and keeps its content.
func TestGoHeap(t *testing.T) {
	mem := onGoHeap(1<<20)(context.Background(), forPages)
	for size := uintptr(512); size <= 64<<10; size *= 2 {
		b, err := mem.Allocate(blockalloc.BlockLayout(size))
		if err != nil || b.Addr()%size != 0 || b.Size() != size {
			t.Fatalf("%v, %v", b, err)
		}
		fill(b.Bytes(), 1, 2)
		if b, err = mem.Reallocate(b, 2*size); err != nil {
			t.Fatal(err)
		}
		if generation, err := generationOf(b.Bytes()[:size], 1); err != nil || generation != 2 {
			t.Errorf("generation %d, %v", generation, err)
		}
		if err := mem.Free(b); err != nil {
			t.Error(err)
		}
	}
}
