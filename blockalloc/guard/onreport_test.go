package guard_test

import (
	"errors"
	"runtime"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/blockalloc/guard"
	"github.com/alloctrace/alloctrace/internal/pages"
)

// TestOnReportEnds: if OnReport panics or ends the goroutine, no operation leaves a block behind that nobody was given, and others go on.
func TestOnReportEnds(t *testing.T) {
	if !pages.Supported {
		return
	}
	ends := map[string]func(){"panic": func() { panic("on purpose") }, "Goexit": runtime.Goexit}
	operations := map[string]func(a *guard.Allocator) error{
		"Free": func(a *guard.Allocator) error { return a.Free(overrun(t, a)) },
		"Reallocate": func(a *guard.Allocator) error {
			_, err := a.Reallocate(overrun(t, a), 200)
			return err
		},
		"Reallocate out of the slots": func(a *guard.Allocator) error {
			b := overrun(t, a)
			a.SetRate(0)
			_, err := a.Reallocate(b, 200)
			return err
		},
		"Reallocate to nothing": func(a *guard.Allocator) error {
			_, err := a.Reallocate(overrun(t, a), 0)
			return err
		},
		"a second Free": func(a *guard.Allocator) error {
			b := allocator(t, a, 100)
			return errors.Join(a.Free(b), a.Free(b))
		},
		"Catch": func(a *guard.Allocator) error {
			b := allocator(t, a, 100)
			mustFree(t, a, b)
			return a.Catch(func() { accessor(pointer(b, 3), false) })
		},
	}
	for how, end := range ends {
		for name, operation := range operations {
			t.Run(name+", "+how, func(t *testing.T) {
				pool, called := new(blockalloc.Pool), 0
				a := newAllocator(t, pool, guard.Options{Rate: 1, OnReport: func(*debug.Report) { called++; end() }})
				done := make(chan bool)
				go func() {
					returned := false
					defer func() {
						_ = recover()
						done <- returned
					}()
					_ = operation(a)
					returned = true
				}()
				if <-done {
					t.Error("the operation returns")
				}
				a.SetRate(1)
				mustFree(t, a, mustAllocate(t, a, 100, 1))
				if s := a.Stats(); called != 1 || s.Reports != 1 || s.LiveBlocks != 0 || s.LiveBytes != 0 || pool.Stats().LiveBlocks != 0 {
					t.Errorf("%d calls of OnReport, %+v; %d blocks of the Pool are live", called, s, pool.Stats().LiveBlocks)
				}
			})
		}
	}
}

// overrun returns a block behind which a byte was overwritten.
func overrun(t testing.TB, a blockalloc.Allocator) blockalloc.Block {
	b := atEnd(t, a, 100, false)
	accessor(pointer(b, 100), true)
	return b
}
