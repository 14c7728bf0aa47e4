package blockalloc_test

import (
	"errors"
	"fmt"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// FuzzPool reads a bound on the cache and then operations from data, two bytes each, and holds what a Pool does
// against a model and its inner parts against each other. Among the operations
// are frees of what is not live, and refusals by the operating system.
func FuzzPool(f *testing.F) {
	f.Add([]byte{0, 0, 12, 0, 12, 0, 20, 3, 0, 3, 1, 2, 0, 6, 0, 4, 0, 7, 0})
	f.Add([]byte{1, 0, 26, 0, 26, 0, 25, 3, 0, 6, 0, 0, 12, 7, 0, 3, 2, 7, 0})
	f.Add([]byte{2, 8, 1, 0, 40, 0, 40, 8, 0, 2, 200, 3, 0, 6, 0, 8, 0, 6, 0})
	f.Add([]byte{3, 1, 16, 1, 16, 5, 0, 5, 77, 3, 0, 3, 0, 4, 0, 6, 0, 0, 12})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) == 0 {
			return
		}
		var refusals byte
		pages := &blockalloc.PoolPages{Before: func(c blockalloc.PoolCall) error {
			refusals >>= 1
			if refusals&1 != 0 {
				return fmt.Errorf("%s: %w", c.Name, errInjected)
			}
			return nil
		}}
		p := blockalloc.NewPool(pages, []int64{0, -1, 1 << 20, 1}[data[0]%4])
		m := &poolModel{pool: p, alone: true}
		for i := 1; i+1 < len(data); i += 2 {
			op, arg := data[i]%9, data[i+1]
			if op == 8 {
				refusals = arg
				continue
			}
			if err := fuzzedStep(m, op, arg); err != nil && !errors.Is(err, errInjected) {
				t.Fatalf("operation %d (%d %d): %v", i/2, op, arg, err)
			}
			if err := m.check(); err != nil {
				t.Fatalf("after operation %d (%d %d): %v", i/2, op, arg, err)
			}
		}
		refusals = 0
		if err := errors.Join(m.freeAll(), m.check(), p.Close()); err != nil {
			t.Fatal(err)
		}
		if reserved, _, err := pages.Sizes(); reserved != 0 || err != nil {
			t.Fatalf("after Close %d B are reserved; %v", reserved, err)
		}
	})
}

// fuzzedStep does one operation.
func fuzzedStep(m *poolModel, op, arg byte) error {
	limit := uint(blockalloc.PoolChunkSize) * 2
	size := min(uintptr(1)<<(arg%28)+uintptr(arg)/28-1, uintptr(limit))
	at := func() *modelled { return &m.live[int(arg)%len(m.live)] }
	switch {
	case op <= 1 && len(m.live) < 200:
		n := 1
		if op == 1 { // many, to fill a run
			n, size = 40, min(size, 64<<10)
		}
		for range n {
			l := blockalloc.Layout{Size: size, Align: 1 << (arg % 19)}
			b, err := m.pool.Allocate(l)
			if err != nil {
				return err
			}
			if b.Size() < size || b.Addr()%l.Align != 0 {
				return fmt.Errorf("Allocate(%v) = %v", l, b)
			}
			if size > 0 {
				m.seed++
				imprint(b, size, m.seed)
				m.live = append(m.live, modelled{b, size, m.seed})
			}
		}
	case op == 2 && len(m.live) > 0:
		return fuzzedReallocate(m, at(), size)
	case op == 3 && len(m.live) > 0:
		e := *at()
		*at() = m.live[len(m.live)-1]
		m.live = m.live[:len(m.live)-1]
		return m.free(e)
	case op == 4 && len(m.dead) > 0:
		return m.freeAgain(m.dead[int(arg)%len(m.dead)])
	case op == 5 && len(m.live) > 0:
		return fuzzedMisstatement(m, at().block, arg)
	case op == 6:
		return m.pool.Trim()
	case op == 7 && len(m.live) > 0:
		if err := m.pool.Close(); !errors.Is(err, blockalloc.ErrLive) {
			return fmt.Errorf("Close with %d live blocks: error %w, want ErrLive", len(m.live), err)
		}
	}
	return nil
}

func fuzzedReallocate(m *poolModel, e *modelled, size uintptr) error {
	b, err := m.pool.Reallocate(e.block, size)
	if err != nil {
		if b != e.block {
			return fmt.Errorf("failed Reallocate(%v, %d) = %v", e.block, size, b)
		}
		if lost := imprinted(b, e.size, e.size, e.seed); lost != nil {
			return lost
		}
		return err
	}
	if size == 0 {
		m.died(e.block)
		*e = m.live[len(m.live)-1]
		m.live = m.live[:len(m.live)-1]
		if !b.IsZero() {
			return fmt.Errorf("Reallocate to 0 = %v", b)
		}
		return nil
	}
	if err := imprinted(b, e.size, min(e.size, size), e.seed); err != nil {
		return err
	}
	if b.Addr() != e.block.Addr() {
		m.died(e.block)
	}
	e.block, e.size = b, size
	imprint(b, size, e.seed)
	return nil
}

// fuzzedMisstatement frees a Block that is not quite a live one.
func fuzzedMisstatement(m *poolModel, b blockalloc.Block, arg byte) error {
	p, size := b.Pointer(), b.Size()
	switch arg % 4 {
	case 0:
		size /= 2
	case 1:
		size *= 2
	case 2:
		p = unsafe.Add(p, size/2)
	case 3:
		p, size = unsafe.Add(p, size/2), size/2
	}
	wrong, err := blockalloc.FromRaw(p, blockalloc.Layout{Size: size, Align: 1})
	if err != nil || size == 0 {
		return nil
	}
	for _, e := range m.live { // by chance the next block
		if e.block.Addr() == wrong.Addr() && e.block.Size() == size {
			return nil
		}
	}
	if err := m.pool.Free(wrong); !errors.Is(err, blockalloc.ErrNotOwned) && !errors.Is(err, blockalloc.ErrDoubleFree) {
		return fmt.Errorf("Free(%v), which is part of %v: error %w", wrong, b, err)
	}
	return nil
}
