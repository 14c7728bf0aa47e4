package blockalloc_test

import (
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
)

var errInjected = blocktest.ErrInjected

// A faultyRun is a scenario on a Pool whose memory is refused at times.
type faultyRun struct {
	pool  *blockalloc.Pool
	pages *blockalloc.PoolPages
	calls int
	fails func(call int, c blockalloc.PoolCall) bool
	log   []string // the calls, for a message
	model poolModel
}

func newFaultyRun(fails func(int, blockalloc.PoolCall) bool) *faultyRun {
	f := &faultyRun{pages: &blockalloc.PoolPages{}, fails: fails}
	f.pages.Before = func(c blockalloc.PoolCall) error {
		f.calls++
		f.log = append(f.log, c.Name)
		if f.fails(f.calls, c) {
			return fmt.Errorf("%s: %w", c.Name, errInjected)
		}
		return nil
	}
	f.pool = blockalloc.NewPool(f.pages, 1<<20)
	f.model.pool = f.pool
	return f
}

// allocate adds n blocks to the model, or as many as there are.
func (f *faultyRun) allocate(n int, size uintptr) error {
	m := &f.model
	for range n {
		b, err := f.pool.Allocate(blockalloc.Layout{Size: size, Align: 1})
		if errors.Is(err, blockalloc.ErrOutOfMemory) && errors.Is(err, errInjected) {
			return nil
		}
		if err != nil {
			return err
		}
		m.seed++
		imprint(b, size, m.seed)
		m.live = append(m.live, modelled{b, size, m.seed})
	}
	return nil
}

// free frees each block of the model that keep does not want. Then there is
// memory for one of that size again, whatever fails.
func (f *faultyRun) free(keep func(i int) bool) error {
	m := &f.model
	var left []modelled
	for i, e := range m.live {
		if keep(i) {
			left = append(left, e)
			continue
		}
		if err := m.free(e); err != nil {
			return err
		}
		b, err := f.pool.Allocate(e.block.Layout())
		if err != nil {
			return fmt.Errorf("after a block of the same size was freed: %w", err)
		}
		if err := f.pool.Free(b); err != nil {
			return err
		}
	}
	m.live = left
	return nil
}

func (f *faultyRun) resize(size uintptr) error {
	for i := range f.model.live {
		e := &f.model.live[i]
		b, err := f.pool.Reallocate(e.block, size)
		if err != nil && (!errors.Is(err, blockalloc.ErrOutOfMemory) || !errors.Is(err, errInjected) || b != e.block) {
			return fmt.Errorf("Reallocate(%v, %d) = %v, %w", e.block, size, b, err)
		}
		if err == nil {
			if err := imprinted(b, e.size, min(e.size, size), e.seed); err != nil {
				return err
			}
			e.block, e.size = b, size
			imprint(b, size, e.seed)
		} else if err := imprinted(b, e.size, e.size, e.seed); err != nil {
			return fmt.Errorf("after a failed Reallocate: %w", err)
		}
	}
	return nil
}

func (f *faultyRun) trim() error {
	if err := f.pool.Trim(); err != nil && !errors.Is(err, errInjected) {
		return err
	}
	return nil
}

// run goes through growth over several chunks, frees, reuse, reallocation and Trim.
func (f *faultyRun) run() error {
	page, chunk := uintptr(os.Getpagesize()), blockalloc.PoolChunkSize
	for i, step := range []func() error{
		func() error { return f.allocate(blockalloc.PoolRunBlocks(page)+1, page) },
		func() error { return f.allocate(3, chunk/4) },
		func() error { return f.allocate(2, chunk/2) },
		func() error { return f.allocate(2, chunk) },
		func() error { return f.free(func(i int) bool { return i%3 == 0 }) },
		f.trim,
		func() error { return f.allocate(5, 16*page) },
		func() error { return f.free(func(i int) bool { return i%2 == 0 && f.model.live[i].size < chunk/4 }) },
		func() error { return f.allocate(blockalloc.PoolRunBlocks(page), page) },
		func() error { return f.allocate(1, chunk/2) },
		func() error { return f.free(func(i int) bool { return i%20 == 0 }) },
		f.trim,
		func() error { return f.resize(32 * page) },
		func() error { return f.resize(page) },
		func() error { return f.allocate(1, chunk) },
		f.trim,
	} {
		if err := step(); err != nil {
			return fmt.Errorf("step %d: %w", i, err)
		}
		if err := f.model.check(); err != nil {
			return fmt.Errorf("after step %d: %w", i, err)
		}
		if err := f.agree(); err != nil {
			return fmt.Errorf("after step %d: %w", i, err)
		}
	}
	return nil
}

// agree holds the Pool's figures against those of its pages.
func (f *faultyRun) agree() error {
	reserved, committed, err := f.pages.Sizes()
	if err != nil {
		return err
	}
	if s := f.pool.Stats(); s.Reserved != reserved || s.Committed != committed {
		return fmt.Errorf("%d B are reserved and %d committed: %+v", reserved, committed, s)
	}
	return nil
}

// end frees all and closes the Pool: at first perhaps in vain, then for good.
func (f *faultyRun) end() error {
	if err := f.model.freeAll(); err != nil {
		return err
	}
	if err := f.pool.Close(); err != nil {
		if !errors.Is(err, errInjected) {
			return err
		}
		if err := f.model.check(); err != nil {
			return fmt.Errorf("after a failed Close: %w", err)
		}
		f.fails = func(int, blockalloc.PoolCall) bool { return false }
		if err := f.allocate(1, blockalloc.PoolChunkSize); err != nil {
			return fmt.Errorf("after a failed Close: %w", err)
		}
		if err := f.model.freeAll(); err != nil {
			return err
		}
		if err := f.pool.Close(); err != nil {
			return err
		}
	}
	if err := f.agree(); err != nil {
		return err
	}
	if s := f.pool.Stats(); s != (blockalloc.PoolStats{}) {
		return fmt.Errorf("a closed Pool has %+v", s)
	}
	return nil
}

// TestPoolSurvivesRefusals: each single call of a scenario to the operating system fails; each
// call from one on; and each of one kind from one on. Nothing is lost, and nothing fails that
// need not.
func TestPoolSurvivesRefusals(t *testing.T) {
	whole := newFaultyRun(func(int, blockalloc.PoolCall) bool { return false })
	if err := errors.Join(whole.run(), whole.end()); err != nil {
		t.Fatal(err)
	}
	kinds := make(map[string]int)
	for _, name := range whole.log {
		kinds[name]++
	}
	for _, name := range []string{"reserve", "commit", "purge", "release"} {
		if kinds[name] < 2 {
			t.Fatalf("the scenario makes too few calls: %v", kinds)
		}
	}
	try := func(what string, at int, fails func(int, blockalloc.PoolCall) bool) {
		f := newFaultyRun(fails)
		if err := errors.Join(f.run(), f.end()); err != nil {
			t.Errorf("%s %d (%s) on: %v", what, at, f.log[min(at, len(f.log))-1], err)
		}
	}
	step := 1
	if os.Getenv("ALLOCTRACE_REQUIRE_ALL") == "" {
		step = 1 + whole.calls/5
	}
	for at := 1; at <= whole.calls; at++ {
		try("only call", at, func(call int, _ blockalloc.PoolCall) bool { return call == at })
	}
	for at := 1; at <= whole.calls; at += step {
		try("calls from", at, func(call int, _ blockalloc.PoolCall) bool { return call >= at })
		for kind := range kinds {
			try(kind+" from call", at, func(call int, c blockalloc.PoolCall) bool { return call >= at && c.Name == kind })
		}
	}
	t.Logf("%v calls in all, each refused", kinds)
}

// TestPoolUsesWhatIsCommitted: where no more memory can be made accessible, freed blocks of one
// size serve any other, to the last byte.
func TestPoolUsesWhatIsCommitted(t *testing.T) {
	const size = 64 << 10
	var refuse bool
	pages := &blockalloc.PoolPages{Before: func(c blockalloc.PoolCall) error {
		if refuse && c.Name == "commit" {
			return errInjected
		}
		return nil
	}}
	p := poolOver(t, pages, 0)
	live := []blockalloc.Block{poolAllocate(t, p, blockalloc.BlockLayout(size))}
	large := poolAllocate(t, p, blockalloc.BlockLayout(blockalloc.PoolChunkSize))
	refuse = true
	for try := range 2 {
		for {
			b, err := p.Allocate(blockalloc.BlockLayout(size))
			if err != nil {
				if !errors.Is(err, blockalloc.ErrOutOfMemory) || !errors.Is(err, errInjected) {
					t.Fatal(err)
				}
				break
			}
			live = append(live, b)
		}
		if s := p.Stats(); try == 0 {
			poolFree(t, p, large)
		} else if s.LiveBytes != s.Committed {
			t.Errorf("no block of %d B can be had: %+v", size, s)
		}
	}
	poolFree(t, p, live...)
	large = poolAllocate(t, p, blockalloc.BlockLayout(blockalloc.PoolChunkSize))
	poolFree(t, p, large)
}
