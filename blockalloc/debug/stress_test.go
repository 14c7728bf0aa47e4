package debug_test

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
)

// TestStress: goroutines allocate, pass on, reallocate and free, while others
// check and try to close. There is no false alarm; and where nothing leaves the
// quarantine, every block that is freed twice is found.
func TestStress(t *testing.T) {
	for name, o := range map[string]debug.Options{
		"Mild":    mild,
		"Default": {QuarantineBlocks: 50},
		"Guard":   {QuarantineBlocks: 50, Guard: true, MaxGuarded: 60},
		"Bugs":    {Quarantine: 1 << 40, QuarantineBlocks: 1 << 20},
	} {
		t.Run(name, func(t *testing.T) { stress(t, o, name == "Bugs") })
	}
}

func stress(t *testing.T, o debug.Options, bugs bool) {
	const workers, rounds = 4, 400
	var planted, delivered atomic.Int64
	o.OnReport = func(r *debug.Report) {
		switch r.Kind {
		case debug.DoubleFree:
			delivered.Add(1)
		case debug.Leak: // by Close, which is to be refused
		default:
			t.Errorf("false alarm: %v", r)
		}
	}
	d := debug.New(new(blockalloc.Heap), o)
	held := mustAllocate(t, d, 8, 8) // so that Close is refused
	passed := make(chan blockalloc.Block, workers)
	work := func(w int) {
		rnd := rand.New(rand.NewPCG(uint64(w), 9))
		for range rounds {
			b := mustAllocate(t, d, 1+uintptr(rnd.UintN(5000)), 1<<rnd.IntN(8))
			mark := byte(rnd.Uint32())
			b.Bytes()[0], b.Bytes()[b.Size()-1] = mark, mark
			select {
			case passed <- b: // somebody else frees it
				b = <-passed
				mark = b.Bytes()[0]
			default:
			}
			stale := b
			if rnd.IntN(3) == 0 {
				n, err := d.Reallocate(b, 1+uintptr(rnd.UintN(5000)))
				if err != nil || n.Bytes()[0] != mark || !d.Owns(n) {
					t.Errorf("Reallocate(%v) = %v, %v", b, n, err)
				}
				b = n
			}
			mustFree(t, d, b)
			if !bugs {
				continue
			}
			for _, b := range []blockalloc.Block{b, stale} {
				planted.Add(1)
				if err := d.Free(b); !errors.Is(err, blockalloc.ErrDoubleFree) {
					t.Errorf("second Free(%v): %v", b, err)
				}
			}
		}
	}
	var working, watching sync.WaitGroup
	for w := range workers {
		working.Go(func() { work(w) })
	}
	var done atomic.Bool
	for range 2 {
		watching.Go(func() {
			for !done.Load() {
				if err := d.Check(); err != nil {
					t.Errorf("Check: %v", err)
				}
				if err := d.Close(); !errors.Is(err, blockalloc.ErrLive) {
					t.Errorf("Close: %v, want ErrLive", err)
				}
				_ = d.Fault(held.Addr())
				runtime.Gosched()
			}
		})
	}
	working.Wait()
	done.Store(true)
	watching.Wait()
	close(passed)
	for b := range passed {
		mustFree(t, d, b)
	}
	if s := d.Stats(); s.LiveBlocks != 1 || s.LiveBytes != 8 || s.WithheldBlocks != 0 || s.QuarantinedBlocks > max(0, workers*rounds*3) {
		t.Errorf("%+v, want one live block of 8 bytes", s)
	}
	if delivered.Load() != planted.Load() {
		t.Errorf("%d double frees delivered, want %d", delivered.Load(), planted.Load())
	}
	mustFree(t, d, held)
	mustClose(t, d)
	if s := d.Stats(); s != (debug.Stats{}) {
		t.Errorf("after Close %+v", s)
	}
}

// TestSeesWhoIsFirst: of many frees of one block at once, by Free and Reallocate, one
// succeeds, and the others' reports name it.
func TestSeesWhoIsFirst(t *testing.T) {
	d := debug.New(new(blockalloc.Heap), debug.Options{})
	for range 200 {
		b := mustAllocate(t, d, 64, 8)
		var errs [4]error
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() {
				if i%2 == 0 {
					errs[i] = d.Free(b)
					return
				}
				var n blockalloc.Block
				if n, errs[i] = d.Reallocate(b, 100); errs[i] == nil {
					errs[i] = d.Free(n)
					if errs[i] == nil {
						return
					}
				}
			})
		}
		wg.Wait()
		freed := 0
		for _, err := range errs {
			var r *debug.Report
			switch {
			case err == nil:
				freed++
			case !errors.As(err, &r) || r.Kind != debug.DoubleFree || len(r.Freed.Frames()) == 0:
				t.Errorf("%v", err)
			}
		}
		if freed != 1 {
			t.Fatalf("%d of %d frees succeeded, want 1", freed, len(errs))
		}
	}
	mustClose(t, d)
}

// FuzzAllocator reads operations from data, two bytes each, some of them bugs, and holds
// what an Allocator says to a model, with every option.
func FuzzAllocator(f *testing.F) {
	f.Add([]byte{0, 12, 3, 0, 0, 20, 4, 0, 2, 0, 5, 0, 6, 0})
	f.Add([]byte{0, 255, 1, 0, 3, 0, 0, 1, 4, 0, 2, 0, 7, 0, 5, 1, 6, 0, 8, 1})
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, o := range []debug.Options{{}, {QuarantineBlocks: 2, Canary: 1, ZeroFree: true}, {Guard: true, MaxGuarded: 2}} {
			replay(t, o, data)
		}
	})
}

func replay(t *testing.T, o debug.Options, data []byte) {
	d := debug.New(new(roomy), o)
	var live, gone []blockalloc.Block
	damaged := make(map[uintptr]bool) // live blocks that were overrun
	for i := 0; i+1 < len(data) && i < 200; i += 2 {
		op, arg := data[i]%8, data[i+1]
		if op == 0 && len(live) < 16 {
			live = append(live, mustAllocate(t, d, 1+uintptr(arg)*7, 1<<(arg%9)))
			continue
		}
		if len(live) == 0 {
			continue
		}
		at := int(arg) % len(live)
		b := live[at]
		switch op {
		case 1: // free
			err := d.Free(b)
			if damaged[b.Addr()] != errors.Is(err, blockalloc.ErrOverrun) || !damaged[b.Addr()] && err != nil {
				t.Fatalf("Free(%v) = %v; overrun: %t", b, err, damaged[b.Addr()])
			}
			if delete(damaged, b.Addr()); err == nil {
				gone = append(gone, b)
				live = append(live[:at], live[at+1:]...)
			}
		case 2: // reallocate
			n, err := d.Reallocate(b, 1+uintptr(arg)*5)
			if damaged[b.Addr()] != errors.Is(err, blockalloc.ErrOverrun) || !damaged[b.Addr()] && err != nil || err != nil && n != b {
				t.Fatalf("Reallocate(%v) = %v, %v; overrun: %t", b, n, err, damaged[b.Addr()])
			}
			if delete(damaged, b.Addr()); err == nil {
				gone = append(gone, b)
				live[at] = n
			}
		case 3: // overrun
			if d.Catch(func() { beyond(b, int(b.Size()), 1)[0] = 'x' }) == nil {
				damaged[b.Addr()] = true
			}
		case 4: // free again
			if len(gone) == 0 {
				continue
			}
			again := gone[int(arg)%len(gone)]
			if !d.Owns(again) && !errors.Is(d.Free(again), blockalloc.ErrDoubleFree) && !isLive(live, again.Addr()) {
				t.Fatalf("second Free(%v) was not found", again)
			}
		case 5: // wrong size
			wrong, _ := blockalloc.FromRaw(b.Pointer(), blockalloc.Layout{Size: b.Size() + 1, Align: 1})
			if err := d.Free(wrong); !errors.Is(err, blockalloc.ErrNotOwned) {
				t.Fatalf("Free with a wrong size: %v", err)
			}
		default:
			if err := d.Check(); (err != nil) != (len(damaged) > 0) {
				t.Fatalf("Check with %d blocks overrun: %v", len(damaged), err)
			}
		}
	}
	for _, b := range live {
		if d.Free(b) != nil {
			mustFree(t, d, b)
		}
	}
	mustClose(t, d)
}

func isLive(live []blockalloc.Block, addr uintptr) bool {
	for _, b := range live {
		if b.Addr() == addr {
			return true
		}
	}
	return false
}
