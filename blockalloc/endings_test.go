package blockalloc_test

import (
	"errors"
	"runtime"
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
)

// TestSlabOverParentConforms is for the clauses that need a parent of the suite's.
func TestSlabOverParentConforms(t *testing.T) {
	t.Parallel()
	blocktest.Run(t, slabConfig(blocktest.Config{
		NewOver: func(_ testing.TB, parent blockalloc.Allocator) (blockalloc.Allocator, error) {
			return blockalloc.NewSlab(parent, 16<<10)
		},
		MaxSize: 1 << 20,
	}))
}

// abrupt is an allocator whose calls do not return once there is an end.
type abrupt struct {
	*alloctrace.Proxy
	end  func()
	left int // calls that return before the one that does not
}

func (a *abrupt) call() {
	if a.left--; a.left == -1 && a.end != nil {
		a.end()
	}
}

func (a *abrupt) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	a.call()
	return a.Proxy.Allocate(l)
}

func (a *abrupt) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	a.call()
	return a.Proxy.Reallocate(b, size)
}

func (a *abrupt) Free(b blockalloc.Block) error {
	a.call()
	return a.Proxy.Free(b)
}

var errAbrupt = errors.New("abrupt")

// endings are the ways in which a call may not return.
var endings = map[string]func(){
	"panic":  func() { panic(errAbrupt) },
	"Goexit": runtime.Goexit,
}

// ended reports whether f did not return.
func ended(t *testing.T, f func()) (ended bool) {
	t.Helper()
	ended = true
	var done sync.WaitGroup
	done.Go(func() {
		defer func() {
			if r := recover(); r != nil && r != any(errAbrupt) {
				t.Errorf("panic: %v", r)
			}
		}()
		f()
		ended = false
	})
	done.Wait()
	return ended
}

// TestAbruptEndings: whichever call of the parent does not return, nothing stays
// locked, and all memory comes back.
func TestAbruptEndings(t *testing.T) {
	page := blockalloc.BlockLayout(4096)
	type use struct {
		make  func(parent blockalloc.Allocator) blockalloc.Allocator
		use   func(a blockalloc.Allocator)
		after func(t *testing.T, a blockalloc.Allocator, live int64)
	}
	must := func(a blockalloc.Allocator, err error) blockalloc.Allocator {
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	var held []blockalloc.Block // by all
	free := func(a blockalloc.Allocator) {
		for _, b := range held {
			if o, ok := blockalloc.OwnerOf(a); ok && o.Owns(b) {
				_ = a.Free(b)
			}
		}
	}
	all := func(a blockalloc.Allocator, n int, l blockalloc.Layout) {
		for range n {
			b, err := a.Allocate(l)
			if err != nil {
				break
			}
			held = append(held, b)
		}
		free(a)
	}
	for name, c := range map[string]use{
		"Slab, Trim": {
			func(p blockalloc.Allocator) blockalloc.Allocator { return must(blockalloc.NewSlab(p, 4096)) },
			func(a blockalloc.Allocator) {
				s := a.(*blockalloc.Slab)
				s.MaxEmpty = 10
				all(s, 40, ofSize(512))
				_ = s.Trim()
				all(s, 3, page) // straight from the parent
			},
			nil,
		},
		"Slab, out of memory": {
			func(p blockalloc.Allocator) blockalloc.Allocator {
				return must(blockalloc.NewSlab(blockalloc.NewLimit(p, 5*4096), 4096))
			},
			func(a blockalloc.Allocator) {
				all(a, 40, ofSize(512))
				all(a, 6, ofSize(64))
				all(a, 5, page)
			},
			nil,
		},
		"debug.Allocator": {
			func(p blockalloc.Allocator) blockalloc.Allocator {
				return debug.New(p, debug.Options{QuarantineBlocks: 3})
			},
			func(a blockalloc.Allocator) { all(a, 9, page) },
			func(t *testing.T, a blockalloc.Allocator, _ int64) {
				if s := a.(*debug.Allocator).Stats(); s.LiveBlocks != 0 || s.LiveBytes != 0 {
					t.Errorf("%+v", s)
				}
			},
		},
		"debug.Allocator, out of memory": {
			func(p blockalloc.Allocator) blockalloc.Allocator {
				return debug.New(blockalloc.NewLimit(p, 5*5000), debug.Options{})
			},
			func(a blockalloc.Allocator) {
				for range 3 {
					all(a, 4, page)
				}
				b, err := a.Allocate(page)
				if err != nil {
					return
				}
				held = append(held, b)
				if n, err := a.Reallocate(b, 8192); err == nil {
					held = append(held, n)
				}
				free(a)
			},
			nil,
		},
		"Limit with slack": {
			func(p blockalloc.Allocator) blockalloc.Allocator {
				return blockalloc.NewLimit(&generous{shy{p}, 10}, 100)
			},
			func(a blockalloc.Allocator) {
				_, _ = a.Allocate(ofSize(95)) // goes back
				_, _ = blockalloc.AllocateContext(t.Context(), a, ofSize(95))
			},
			func(t *testing.T, a blockalloc.Allocator, live int64) {
				if used := a.(*blockalloc.Limit).Used(); used != 95*live {
					t.Errorf("%d bytes are used, %d blocks live", used, live)
				}
			},
		},
		"Limit, AllocateContext": {
			func(p blockalloc.Allocator) blockalloc.Allocator { return blockalloc.NewLimit(p, 100) },
			func(a blockalloc.Allocator) {
				for range 3 {
					if b, err := blockalloc.AllocateContext(t.Context(), a, ofSize(50)); err == nil {
						held = append(held, b)
						free(a)
					}
				}
			},
			func(t *testing.T, a blockalloc.Allocator, live int64) {
				if used := a.(*blockalloc.Limit).Used(); used != 0 || live != 0 {
					t.Errorf("%d bytes are used, %d blocks live", used, live)
				}
			},
		},
		"Locked": {
			func(p blockalloc.Allocator) blockalloc.Allocator { return blockalloc.NewLocked(p) },
			func(a blockalloc.Allocator) { all(a, 3, page) },
			func(t *testing.T, a blockalloc.Allocator, _ int64) { mustFree(t, a, mustAllocate(t, a, 8, 8)) },
		},
	} {
		for how, end := range endings {
			for calls := 0; ; calls++ {
				p := &abrupt{Proxy: alloctrace.Wrap(new(blockalloc.Heap)), left: calls}
				a := c.make(p)
				p.end = end
				hasEnded := ended(t, func() { c.use(a) })
				p.end = nil
				free(a)
				held = nil
				if c.after != nil {
					c.after(t, a, p.Stats().LiveBlocks)
				}
				if o, ok := a.(interface{ Close() error }); ok {
					if err := o.Close(); err != nil {
						t.Errorf("Close: %v", err)
					}
					if s := p.Stats(); s.LiveBlocks != 0 {
						t.Errorf("%d blocks are live at the parent", s.LiveBlocks)
					}
				}
				if t.Failed() {
					t.Fatalf("%s, a %s after %d calls", name, how, calls)
				}
				if !hasEnded {
					break
				}
			}
		}
	}
}

// TestFreeListTrimsAgain: the table of a FreeList stays correct if its parent does not
// return while blocks go back.
func TestFreeListTrimsAgain(t *testing.T) {
	p := &abrupt{Proxy: alloctrace.Wrap(new(blockalloc.Heap)), end: func() { panic(errAbrupt) }}
	list := newFreeList(t, p, blockalloc.BlockLayout(64), 0)
	for range 40 {
		p.left = 1000
		if err := list.Reserve(8); err != nil {
			t.Fatal(err)
		}
		p.left = 7
		wantPanic(t, errAbrupt.Error(), func() { _ = list.Trim() })
	}
	p.left = 1000
	mustFree(t, list, mustAllocate(t, list, 64, 64))
	if err := list.Close(); err != nil {
		t.Error(err)
	}
	if s := p.Stats(); s.LiveBlocks != 0 {
		t.Errorf("%d blocks are live at the parent", s.LiveBlocks)
	}
}

// TestOnReportEnds: if OnReport of a debug.Allocator does not return, the other reports are not lost, nor is
// the operation's block. Close returns what could not be returned before.
func TestOnReportEnds(t *testing.T) {
	for how, end := range endings {
		var reports []*debug.Report
		p := &abrupt{Proxy: alloctrace.Wrap(blockalloc.NewLimit(new(blockalloc.Heap), 1000))}
		d := debug.New(p, debug.Options{OnReport: func(r *debug.Report) {
			if reports = append(reports, r); len(reports) == 1 {
				end()
			}
		}})
		for range 2 { // written to after they were freed: found when the quarantine goes
			b := mustAllocate(t, d, 100, 4)
			mem := b.Bytes()
			mustFree(t, d, b)
			mem[0]++
		}
		for range 3 {
			mustFree(t, d, mustAllocate(t, d, 100, 4))
		}
		if !ended(t, func() { _, _ = d.Allocate(blockalloc.Layout{Size: 400, Align: 1}) }) {
			t.Errorf("%s: Allocate returns", how)
		}
		if s := d.Stats(); s.LiveBlocks != 0 || s.LiveBytes != 0 {
			t.Errorf("%s: nobody has a block, and %+v", how, s)
		}
		mustFree(t, d, mustAllocate(t, d, 8, 4))
		if len(reports) != 2 {
			t.Errorf("%s: %d reports, want 2", how, len(reports))
		}
		p.end, p.left = end, 0 // its next Free
		if !ended(t, func() { _ = d.Close() }) {
			t.Errorf("%s: Close returns", how)
		}
		if err := d.Close(); !errors.Is(err, blockalloc.ErrUseAfterFree) {
			t.Errorf("%s: Close: %v", how, err)
		}
		if s := p.Stats(); s.LiveBlocks != 0 {
			t.Errorf("%s: %d blocks are live at the parent", how, s.LiveBlocks)
		}
	}
}
