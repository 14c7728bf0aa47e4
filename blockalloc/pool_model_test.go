package blockalloc_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
)

// checkedPool is a Pool whose inner parts are checked after each few operations, and whose pages may be
// refused.
type checkedPool struct {
	*blockalloc.Pool
	each     int  // operations to a check
	done     int  // operations
	refusals byte // bit i is set if call i of the operating system from here on fails
}

var poolSteps = []blocktest.Step{
	{Name: "Trim", Do: func(s *blocktest.State) error {
		return unlessInjected(s.Allocator.(*checkedPool).Trim())
	}},
	{Name: "Close", Do: func(s *blocktest.State) error {
		if len(s.Live) == 0 {
			return nil
		}
		if err := s.Allocator.(*checkedPool).Close(); !errors.Is(err, blockalloc.ErrLive) {
			return fmt.Errorf("with %d live blocks: error %v, want ErrLive", len(s.Live), err)
		}
		return nil
	}},
	{Name: "many", Do: manyOfOneSize},
	{Name: "large", Do: largeBlock},
}

// poolRefusals is a step of a Pool whose pages may be refused.
var poolRefusals = blocktest.Step{Name: "refusals", Do: func(s *blocktest.State) error {
	p := s.Allocator.(*checkedPool)
	p.refusals = byte(s.IntN(256))
	s.Logf("%08b", p.refusals)
	return nil
}}

func unlessInjected(err error) error {
	if errors.Is(err, blocktest.ErrInjected) {
		return nil
	}
	return err
}

// manyOfOneSize fills runs, and leaves them.
func manyOfOneSize(s *blocktest.State) error {
	p := s.Allocator.(*checkedPool)
	var m poolModel
	l := blockalloc.Layout{Size: 1 + uintptr(s.IntN(1<<s.IntN(14))), Align: 1 << s.IntN(13)}
	s.Logf("blocks of %v", l)
	for m.pool = p.Pool; len(m.live) < 70; {
		if err := m.allocate(l); err != nil {
			if unlessInjected(err) != nil {
				return err
			}
			break
		}
	}
	return m.freeAll()
}

// largeBlock has a block of a chunk or two, and reallocates it.
func largeBlock(s *blocktest.State) error {
	p := s.Allocator.(*checkedPool)
	seldom := 64 // it costs much
	if testing.Short() {
		seldom = 256
	}
	if s.IntN(seldom) > 0 {
		return nil
	}
	m := poolModel{pool: p.Pool}
	size := func() uintptr { return blockalloc.PoolChunkSize<<s.IntN(2) + uintptr(s.IntN(3)) - 1 }
	l := blockalloc.Layout{Size: size(), Align: 1 << s.IntN(13)}
	s.Logf("a block of %v", l)
	if err := m.allocate(l); err != nil {
		return unlessInjected(err)
	}
	if err := m.reallocate(0, size()); unlessInjected(err) != nil {
		return err
	}
	if err := poolAgrees(p, append(m.blocks(), s.Live...)); err != nil {
		return err
	}
	return m.freeAll()
}

// poolAgrees compares the Pool's own figures with the live blocks, and checks its inner
// parts.
func poolAgrees(a blockalloc.Allocator, live []blockalloc.Block) error {
	p := a.(*checkedPool)
	var inUse int64
	for _, b := range live {
		inUse += int64(b.Size())
	}
	if s := p.Stats(); s.LiveBlocks != int64(len(live)) || s.LiveBytes != inUse {
		return fmt.Errorf("%d blocks of %d B are live: %+v", len(live), inUse, s)
	}
	if p.done++; p.done%p.each != 0 {
		return nil
	}
	if err := poolSpansAgree(p.Pool, asSpans(live)); err != nil {
		return err
	}
	return blockalloc.CheckPool(p.Pool)
}

// poolConfig describes the Pool that alloc makes, whose inner parts are checked after so many operations.
func poolConfig(each int, alloc func(testing.TB) *blockalloc.Pool) blocktest.Config {
	return blocktest.Config{
		New:       func(t testing.TB) blockalloc.Allocator { return &checkedPool{Pool: alloc(t), each: each} },
		LiveBytes: func(a blockalloc.Allocator) int64 { return a.(*checkedPool).Stats().LiveBytes },
		Steps:     poolSteps,
		Check:     poolAgrees,
	}
}

// refusedPool describes a Pool whose pages are refused at times.
func refusedPool(each int, maxCached int64) blocktest.Config {
	c := poolConfig(each, nil)
	c.New = func(t testing.TB) blockalloc.Allocator {
		p := &checkedPool{each: each}
		pages := &blockalloc.PoolPages{Before: func(c blockalloc.PoolCall) error {
			refused := p.refusals&1 != 0
			if p.refusals >>= 1; refused {
				return fmt.Errorf("%s: %w", c.Name, blocktest.ErrInjected)
			}
			return nil
		}}
		p.Pool = poolOver(t, pages, maxCached)
		t.Cleanup(func() { p.refusals = 0 })
		return p
	}
	c.Steps = append(poolSteps[:len(poolSteps):len(poolSteps)], poolRefusals)
	return c
}

// FuzzPool holds a Pool whose pages are refused at times against the model.
func FuzzPool(f *testing.F) { blocktest.Fuzz(f, refusedPool(1, 1<<20)) }
