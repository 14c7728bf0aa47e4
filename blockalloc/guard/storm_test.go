package guard_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/guard"
	"github.com/alloctrace/alloctrace/internal/measure"
	"github.com/alloctrace/alloctrace/internal/pages"
)

// TestStorm: goroutines allocate, pass on, reallocate and free blocks of all sizes, while others look at the
// Allocator and change its rate. No report is made, no byte is lost, and nothing is live in the end.
func TestStorm(t *testing.T) {
	for name, inner := range map[string]func() blockalloc.Allocator{
		"Heap":   func() blockalloc.Allocator { return new(blockalloc.Heap) },
		"System": newRoot,
		"Pool":   func() blockalloc.Allocator { return new(blockalloc.Pool) },
		"Slab": func() blockalloc.Allocator {
			slab, err := blockalloc.NewSlab(new(blockalloc.Pool), 64<<10)
			if err != nil {
				t.Fatal(err)
			}
			return slab
		},
	} {
		if measure.Race && name != "Heap" {
			continue // the race detector does not see its memory
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := newAllocator(t, inner(), guard.Options{Rate: 16 << 10})
			mem := alloctrace.Wrap(a)
			storm(t, a, mem)
			if s := mem.Stats(); s.LiveBytes != 0 || s.LiveBlocks != 0 || s.FailedFrees != 0 {
				t.Errorf("in the end: %v", s)
			}
			s := a.Stats()
			if s.LiveBlocks != 0 || s.LiveBytes != 0 || s.Reports != 0 || (s.Guarded > 0) != pages.Supported {
				t.Errorf("%+v", s)
			}
			t.Logf("%+v", s)
		})
	}
}

func storm(t *testing.T, a *guard.Allocator, mem *alloctrace.Proxy) {
	rounds := 1500
	if !testing.Short() {
		rounds = 20_000
	}
	const workers = 4
	passed := make(chan blockalloc.Block, workers)
	work := func(seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, 17))
		for range rounds {
			l := blockalloc.Layout{Size: 1 + uintptr(rnd.ExpFloat64()*3000), Align: 1 << rnd.IntN(14), Zeroed: rnd.IntN(4) == 0}
			b, err := mem.Allocate(l)
			if rnd.IntN(50) == 0 && err == nil {
				b, err = mem.Reallocate(b, 1<<20)
			}
			if err != nil || b.Addr()%l.Align != 0 {
				t.Errorf("%v for %v: %v", b, l, err)
				return
			}
			if l.Zeroed && b.Requested() == l.Size && bytes.Count(b.Bytes(), []byte{0}) != int(b.Size()) {
				t.Errorf("%v is not zeroed", b)
			}
			mark(b, byte(b.Addr()>>4))
			select {
			case passed <- b: // somebody else frees it
				b = <-passed
			default:
			}
			if rnd.IntN(3) == 0 {
				was := b.Bytes()[0]
				if b, err = mem.Reallocate(b, 1+uintptr(rnd.ExpFloat64()*5000)); err != nil || b.Bytes()[0] != was {
					t.Errorf("Reallocate: %v, %v", b, err)
					return
				}
				mark(b, was)
			}
			if !mem.Owns(b) || b.Bytes()[0] != b.Bytes()[b.Size()-1] || b.Bytes()[0] != b.Bytes()[b.Size()/2] {
				t.Errorf("%v is not what it was", b)
			}
			if err := mem.Free(b); err != nil {
				t.Error(err)
			}
		}
	}
	var working, watching sync.WaitGroup
	for w := range workers {
		working.Go(func() { work(uint64(w)) })
	}
	ctx, cancel := context.WithCancel(t.Context())
	watching.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			for _, m := range a.Mappings() {
				a.Describe(m.Addr + m.Size - uintptr(i)%m.Size)
			}
			if s := a.Stats(); s.LiveBlocks < 0 || s.LiveBytes < s.LiveBlocks || s.Memory > 1<<20 {
				t.Errorf("%+v", s)
			}
			a.SetRate([]int{16 << 10, 1, 0, 4 << 10}[i%4])
			time.Sleep(100 * time.Microsecond)
		}
	})
	working.Wait()
	cancel()
	watching.Wait()
	close(passed)
	for b := range passed {
		if err := mem.Free(b); err != nil {
			t.Error(err)
		}
	}
}

// mark writes three bytes that tell a block from others.
func mark(b blockalloc.Block, v byte) {
	b.Bytes()[0], b.Bytes()[b.Size()/2], b.Bytes()[b.Size()-1] = v, v, v
}
