package debug_test

import (
	"errors"
	"runtime"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
)

var errAbrupt = errors.New("abrupt")

// endings are the ways in which a call may not return.
var endings = map[string]func(){
	"panic":  func() { panic(errAbrupt) },
	"Goexit": runtime.Goexit,
}

// abrupt is an allocator whose next Free does not return, if there is an end.
type abrupt struct {
	counting
	end func()
}

func (a *abrupt) Free(b blockalloc.Block) error {
	if end := a.end; end != nil {
		a.end = nil
		end()
	}
	return a.counting.Free(b)
}

// ended reports whether f did not return.
func ended(t *testing.T, f func()) (ended bool) {
	t.Helper()
	done := make(chan struct{})
	ended = true
	go func() {
		defer close(done)
		defer func() {
			if r := recover(); r != nil && r != any(errAbrupt) {
				t.Errorf("panic: %v", r)
			}
		}()
		f()
		ended = false
	}()
	<-done
	return ended
}

// TestOnReportEnds: if OnReport does not return, the other reports are not lost, nor is
// the operation's block. Close returns what could not be returned before.
func TestOnReportEnds(t *testing.T) {
	for how, end := range endings {
		var reports []*debug.Report
		p := &abrupt{counting: counting{Allocator: blockalloc.NewLimit(new(blockalloc.Heap), 1000)}}
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
		p.end = end
		if !ended(t, func() { _ = d.Close() }) {
			t.Errorf("%s: Close returns", how)
		}
		if err := d.Close(); !errors.Is(err, blockalloc.ErrUseAfterFree) {
			t.Errorf("%s: Close: %v", how, err)
		}
		if p.live != 0 {
			t.Errorf("%s: %d blocks are live at the parent", how, p.live)
		}
	}
}
