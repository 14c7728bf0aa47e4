package blockalloc_test

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
)

// listed is a FreeList over a lender, and its model: a stack of addresses at hand. It
// knows which block comes next, and why one is refused.
type listed struct {
	*blockalloc.FreeList
	parent *lender
	layout blockalloc.Layout
	max    int
	hand   []uintptr
	live   map[uintptr]bool
	wrong  error // what was first not as it ought to be
}

var errParent = fmt.Errorf("the parent refuses: %w", blocktest.ErrInjected)

func (f *listed) expect(ok bool, format string, args ...any) {
	if !ok && f.wrong == nil {
		f.wrong = fmt.Errorf("with %d blocks at hand and %d live: %w", len(f.hand), len(f.live), fmt.Errorf(format, args...))
	}
}

// take does what may take blocks from the parent, and lays them onto the stack.
func (f *listed) take(do func() error) error {
	before := len(f.parent.history)
	err := do()
	f.hand = append(f.hand, f.parent.history[before:]...)
	return err
}

func (f *listed) Allocate(l blockalloc.Layout) (b blockalloc.Block, err error) {
	err = f.take(func() error {
		b, err = f.FreeList.Allocate(l)
		return err
	})
	if l.Check() != nil || l.Size == 0 || errors.Is(err, blockalloc.ErrClosed) {
		return b, err
	}
	var want error
	last := len(f.hand) - 1
	switch {
	case l.Size > f.layout.Size:
		want = blockalloc.ErrOutOfMemory
	case l.Align > f.layout.Align:
		want = blockalloc.ErrUnsupportedAlign
	case last >= 0:
		f.expect(err == nil && b.Addr() == f.hand[last] && b.Size() == f.layout.Size, "Allocate(%v) = %v, %v; want %d bytes at %#x", l, b, err, f.layout.Size, f.hand[last])
		f.hand = f.hand[:last]
		f.live[b.Addr()] = true
		return b, err
	case f.max > 0 && len(f.live) == f.max:
		want = blockalloc.ErrOutOfMemory
	default:
		want = blocktest.ErrInjected
	}
	f.expect(errors.Is(err, want), "Allocate(%v) = %v, %v; want %v", l, b, err, want)
	return b, err
}

func (f *listed) Free(b blockalloc.Block) error {
	var want error
	switch at := b.Addr(); {
	case b.IsZero() || f.live[at] && b.Size() == f.layout.Size:
	case slices.Contains(f.hand, at):
		want = blockalloc.ErrDoubleFree
	default:
		want = blockalloc.ErrNotOwned
	}
	err := f.FreeList.Free(b)
	f.expect(errors.Is(err, want), "Free(%v): %v, want %v", b, err, want)
	if err == nil && !b.IsZero() {
		f.freed(b)
	}
	return err
}

func (f *listed) freed(b blockalloc.Block) {
	delete(f.live, b.Addr())
	f.hand = append(f.hand, b.Addr())
}

func (f *listed) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	wasLive := f.Owns(b)
	n, err := f.FreeList.Reallocate(b, size)
	switch {
	case !wasLive:
	case size == 0:
		f.freed(b)
	case size <= f.layout.Size:
		l := b.Layout()
		l.Size = f.layout.Size // of FromRaw b has less
		f.expect(err == nil && n.Addr() == b.Addr() && n.Layout() == l && n.Requested() == size, "Reallocate(%v, %d) = %v, %v", b, size, n, err)
	}
	return n, err
}

// Close closes the list and has the parent take all back.
func (f *listed) Close() error {
	f.parent.keeping = nil
	err := f.FreeList.Close()
	if err == nil {
		f.hand = nil
	}
	return err
}

var listSteps = []blocktest.Step{
	{Name: "Reserve", Weight: 3, Do: func(s *blocktest.State) error {
		f := s.Allocator.(*listed)
		n, had := s.IntN(20), len(f.hand)
		s.Logf("%d", n)
		err := f.take(func() error { return f.FreeList.Reserve(n) })
		switch {
		case f.max > 0 && n > f.max:
			if !errors.Is(err, blockalloc.ErrOutOfMemory) {
				return fmt.Errorf("%d of at most %d: %v", n, f.max, err)
			}
		case err == nil:
			if len(f.hand)+len(f.live) < n {
				return fmt.Errorf("of %d: there are %d", n, len(f.hand)+len(f.live))
			}
		case err == errParent: // and it took back what it had lent
			f.hand = f.hand[:had]
		case errors.Is(err, blocktest.ErrInjected):
			f.refused()
		default:
			return err
		}
		return nil
	}},
	{Name: "Trim", Do: func(s *blocktest.State) error {
		f := s.Allocator.(*listed)
		return f.trimmed(f.FreeList.Trim())
	}},
	{Name: "Close", Weight: 2, Do: func(s *blocktest.State) error {
		f := s.Allocator.(*listed)
		switch {
		case len(f.live) > 0:
			if err := f.FreeList.Close(); !errors.Is(err, blockalloc.ErrLive) {
				return fmt.Errorf("with %d live blocks: %v", len(f.live), err)
			}
		case f.parent.keeping != nil && len(f.hand) > 0: // else the list were closed
			return f.trimmed(f.FreeList.Close())
		}
		return nil
	}},
	{Name: "too large or too strictly aligned", Do: func(s *blocktest.State) error {
		f := s.Allocator.(*listed)
		for _, l := range []blockalloc.Layout{{Size: f.layout.Size + 1, Align: 1}, {Size: 1, Align: 2 * f.layout.Align}} {
			if b, err := f.Allocate(l); err == nil {
				return fmt.Errorf("Allocate(%v) = %v", l, b)
			}
		}
		if len(s.Live) > 0 {
			b := s.Live[s.IntN(len(s.Live))]
			if n, err := f.Reallocate(b, f.layout.Size+1+uintptr(s.IntN(100))); !errors.Is(err, blockalloc.ErrOutOfMemory) || n != b {
				return fmt.Errorf("Reallocate(%v) = %v, %v", b, n, err)
			}
		}
		return nil
	}},
	{Name: "the parent changes its mind", Weight: 3, Do: func(s *blocktest.State) error {
		p := s.Allocator.(*listed).parent
		p.refusal, p.after, p.keeping = nil, s.IntN(8), nil
		if s.IntN(2) == 0 {
			p.refusal = errParent
		}
		if s.IntN(4) == 0 {
			p.keeping = errParent
		}
		p.extra = uintptr(s.IntN(32))
		s.Logf("refuses after %d: %v, keeps: %v, %d extra", p.after, p.refusal, p.keeping, p.extra)
		return nil
	}},
}

// trimmed says that Trim or Close returned err.
func (f *listed) trimmed(err error) error {
	if f.parent.keeping != nil && len(f.hand) > 0 {
		if err != errParent {
			return fmt.Errorf("giving blocks back to a parent that takes none: %v", err)
		}
		return nil
	}
	if err == nil {
		f.hand = nil
	} else {
		f.refused()
	}
	return err
}

// refused says that the parent has taken back some of the blocks at hand, and then refused one.
func (f *listed) refused() {
	f.hand = slices.DeleteFunc(f.hand, func(addr uintptr) bool { _, ok := f.parent.lent[addr]; return !ok })
}

// listedBlocks: the parent has lent what is at hand and what is live, and no more than allowed.
func listedBlocks(a blockalloc.Allocator, live []blockalloc.Block) error {
	f := a.(*listed)
	f.expect(len(live) == len(f.live), "%d blocks are live", len(live))
	f.expect(len(f.parent.lent) == len(f.hand)+len(f.live), "the parent has lent %d", len(f.parent.lent))
	f.expect(f.max == 0 || len(f.parent.lent) <= f.max, "the parent has lent %d, want at most %d", len(f.parent.lent), f.max)
	for _, b := range live {
		f.expect(f.Owns(b), "Owns(%v) = false", b)
	}
	return f.wrong
}

// listConfigs describe lists of pages, and of little blocks whose parent fails at times.
func listConfigs() map[string]blocktest.Config {
	configs := make(map[string]blocktest.Config)
	for name, l := range map[string]struct {
		layout blockalloc.Layout
		max    int
	}{
		"pages": {blockalloc.BlockLayout(4096), 0}, "256 pages": {blockalloc.BlockLayout(4096), 256},
		"40 bytes": {blockalloc.Layout{Size: 40, Align: 32}, 0}, "8 of 40 bytes": {blockalloc.Layout{Size: 40, Align: 32}, 8},
	} {
		configs[name] = blocktest.Config{
			NewOver: func(t testing.TB, parent blockalloc.Allocator) (blockalloc.Allocator, error) {
				lender := lenderOf(t, parent)
				f, err := blockalloc.NewFreeList(lender, l.layout, l.max)
				return &listed{FreeList: f, parent: lender, layout: l.layout, max: l.max, live: make(map[uintptr]bool)}, err
			},
			MaxSize:        l.layout.Align,
			MaxLive:        l.max,
			Bounded:        l.max != 0,
			SingleThreaded: true,
			Steps:          listSteps,
			Check:          listedBlocks,
		}
	}
	return configs
}

func TestFreeListConforms(t *testing.T) {
	t.Parallel()
	for name, c := range listConfigs() {
		t.Run(name, func(t *testing.T) { blocktest.Run(t, c) })
	}
}

func FuzzFreeList(f *testing.F) { blocktest.Fuzz(f, listConfigs()["8 of 40 bytes"]) }
