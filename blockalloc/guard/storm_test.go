package guard_test

import (
	"bytes"
	"context"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/guard"
	"github.com/alloctrace/alloctrace/internal/measure"
	"github.com/alloctrace/alloctrace/internal/pages"
)

// A wrap puts guards around an allocator.
type wrap func(inner blockalloc.Allocator) *guard.Allocator

// family has each allocator of blockalloc that serves blocks of any size, and the others with a Fallback. Guards are around
// it, or in it around a root.
var family = map[string]func(t *testing.T, guarded wrap) blockalloc.Allocator{
	"Heap": func(_ *testing.T, guarded wrap) blockalloc.Allocator {
		return guarded(new(blockalloc.Heap))
	},
	"System": func(_ *testing.T, guarded wrap) blockalloc.Allocator {
		return guarded(newRoot())
	},
	"Pool": func(_ *testing.T, guarded wrap) blockalloc.Allocator {
		return guarded(new(blockalloc.Pool))
	},
	"Slab": func(t *testing.T, guarded wrap) blockalloc.Allocator {
		return guarded(must(t)(blockalloc.NewSlab(new(blockalloc.Pool), 64<<10)))
	},
	"Slab over guards": func(t *testing.T, guarded wrap) blockalloc.Allocator {
		return must(t)(blockalloc.NewSlab(guarded(newRoot()), 64<<10))
	},
	"Limit": func(_ *testing.T, guarded wrap) blockalloc.Allocator {
		return blockalloc.NewLimit(guarded(new(blockalloc.Pool)), 256<<20)
	},
	"Segregate": func(t *testing.T, guarded wrap) blockalloc.Allocator {
		return guarded(blockalloc.NewSegregate(must(t)(blockalloc.NewSlab(new(blockalloc.Pool), 64<<10)), newRoot(), 4<<10))
	},
	"Fallback": func(_ *testing.T, guarded wrap) blockalloc.Allocator {
		return guarded(blockalloc.NewFallback(blockalloc.NewLimit(new(blockalloc.Heap), 64<<10), new(blockalloc.Pool)))
	},
	"Null": func(_ *testing.T, guarded wrap) blockalloc.Allocator {
		return blockalloc.NewFallback(guarded(blockalloc.Null{}), new(blockalloc.Pool))
	},
	"FreeList": func(t *testing.T, guarded wrap) blockalloc.Allocator {
		list := must(t)(blockalloc.NewFreeList(new(blockalloc.Pool), blockalloc.BlockLayout(4096), 32))
		return guarded(blockalloc.NewFallback(blockalloc.NewLocked(list), new(blockalloc.Heap)))
	},
	"Bump": func(t *testing.T, guarded wrap) blockalloc.Allocator {
		bump := must(t)(blockalloc.NewBump(new(blockalloc.Pool), 256<<10))
		return guarded(blockalloc.NewFallback(blockalloc.NewLocked(bump), new(blockalloc.Heap)))
	},
	"Fixed": func(t *testing.T, guarded wrap) blockalloc.Allocator {
		fixed := must(t)(blockalloc.NewFixed(make([]byte, 256<<10)))
		return blockalloc.NewLocked(guarded(blockalloc.NewFallback(fixed, new(blockalloc.Heap))))
	},
}

// must returns what ends the test if an allocator could not be made.
func must(t *testing.T) func(blockalloc.Allocator, error) blockalloc.Allocator {
	return func(a blockalloc.Allocator, err error) blockalloc.Allocator {
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
}

// TestStorm: goroutines allocate, pass on, reallocate and free blocks of all sizes, while others look at the
// Allocator and change its rate. No report is made, no byte is lost, the guards take no more memory than they say, and nothing is
// live in the end. It runs once, or as long as ALLOCTRACE_STORM says, such as 1h, of which each allocator has its share.
func TestStorm(t *testing.T) {
	duration, err := time.ParseDuration(os.Getenv("ALLOCTRACE_STORM"))
	if err != nil && os.Getenv("ALLOCTRACE_STORM") != "" {
		t.Fatalf("ALLOCTRACE_STORM: %v", err)
	}
	share := duration / time.Duration(len(family))
	for name, newInner := range family {
		if measure.Race && name != "Heap" {
			continue // the race detector does not see its memory
		}
		t.Run(name, func(t *testing.T) {
			if duration == 0 {
				t.Parallel()
			}
			var a *guard.Allocator
			mem := alloctrace.Wrap(newInner(t, func(inner blockalloc.Allocator) *guard.Allocator {
				a = newAllocator(t, inner, guard.Options{Rate: 16 << 10})
				return a
			}))
			turns, began := uint64(0), time.Now()
			for ok := true; ok; ok = time.Since(began) < share && !t.Failed() {
				storm(t, a, mem, turns)
				turns++
			}
			closeAll(t, mem.Unwrap())
			if s := mem.Stats(); s.LiveBytes != 0 || s.LiveBlocks != 0 || s.FailedFrees != 0 {
				t.Errorf("in the end: %v", s)
			}
			s := a.Stats()
			if s.LiveBlocks != 0 || s.LiveBytes != 0 || s.Reports != 0 || (s.Guarded > 0) != pages.Supported {
				t.Errorf("%+v", s)
			}
			if resident := resident(t, a); resident != 0 {
				t.Errorf("in the end %d bytes of the slots are resident", resident)
			}
			t.Logf("%d turns, %v: %+v", turns, mem.Stats(), s)
		})
	}
}

// closeAll closes the allocators from a down that can be closed.
func closeAll(t *testing.T, a blockalloc.Allocator) {
	t.Helper()
	if c, ok := a.(interface{ Close() error }); ok {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	}
	for inner := range blockalloc.Inner(a) {
		closeAll(t, inner)
	}
}

func storm(t *testing.T, a *guard.Allocator, mem *alloctrace.Proxy, turn uint64) {
	rounds := 500
	if !testing.Short() {
		rounds = 20_000
	}
	const workers, kept = 4, 150 // blocks
	var pause sync.RWMutex       // no operation is under way while it is locked
	passed := make(chan blockalloc.Block, workers+kept)
	work := func(seed uint64) {
		rnd := rand.New(rand.NewPCG(seed, turn))
		for range rounds {
			pause.RLock()
			ok := operate(t, mem, rnd, passed, kept)
			pause.RUnlock()
			if !ok {
				return
			}
		}
	}
	var working, watching sync.WaitGroup
	for w := range uint64(workers) {
		working.Go(func() { work(w) })
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
			if i%100 == 99 {
				pause.Lock()
				checkMemory(t, a)
				pause.Unlock()
			}
			a.SetRate([]int{16 << 10, 1, 0, 4 << 10}[i%4])
			time.Sleep(100 * time.Microsecond)
		}
	})
	working.Wait()
	cancel()
	watching.Wait()
	checkMemory(t, a)
	close(passed)
	for b := range passed {
		check(t, mem, b)
		if err := mem.Free(b); err != nil {
			t.Error(err)
		}
	}
}

// operate allocates a block, passes it on for another one once some are kept, and frees that. It returns false if it could not.
func operate(t *testing.T, mem *alloctrace.Proxy, rnd *rand.Rand, passed chan blockalloc.Block, kept int) bool {
	l := blockalloc.Layout{Size: 1 + uintptr(rnd.ExpFloat64()*3000), Align: 1 << rnd.IntN(14), Zeroed: rnd.IntN(4) == 0}
	b, err := mem.Allocate(l)
	if rnd.IntN(50) == 0 && err == nil {
		b, err = mem.Reallocate(b, 1<<20)
	}
	if err != nil || b.Addr()%l.Align != 0 {
		t.Errorf("%v for %v: %v", b, l, err)
		return false
	}
	if l.Zeroed && b.Requested() == l.Size && bytes.Count(b.Bytes(), []byte{0}) != int(b.Size()) {
		t.Errorf("%v is not zeroed", b)
	}
	fill(b)
	passed <- b // somebody else frees it
	if len(passed) <= kept {
		return true
	}
	b = <-passed
	check(t, mem, b)
	if rnd.IntN(3) == 0 {
		was, n := b.Bytes()[0], b.Requested()
		if b, err = mem.Reallocate(b, 1+uintptr(rnd.ExpFloat64()*5000)); err != nil {
			t.Errorf("Reallocate: %v, %v", b, err)
			return false
		}
		if n = min(n, b.Requested()); bytes.Count(b.Bytes()[:n], []byte{was}) != int(n) {
			t.Errorf("Reallocate: %v has not what it had", b)
		}
	}
	if err := mem.Free(b); err != nil {
		t.Error(err)
	}
	return true
}

// checkMemory looks whether the slots have no more in memory than a says, while nothing is under way.
func checkMemory(t *testing.T, a *guard.Allocator) {
	t.Helper()
	if s, resident := a.Stats(), resident(t, a); resident-s.LiveBytes > s.Memory {
		t.Errorf("%d bytes of the slots are resident: %+v", resident, s)
	}
}

// fill writes a byte all over a block that tells it from others.
func fill(b blockalloc.Block) {
	mem, mark := b.Bytes(), byte(b.Addr()>>4)
	for i := range mem {
		mem[i] = mark
	}
}

// check looks for what fill has written.
func check(t *testing.T, mem *alloctrace.Proxy, b blockalloc.Block) {
	t.Helper()
	if !mem.Owns(b) || bytes.Count(b.Bytes(), []byte{byte(b.Addr() >> 4)}) != int(b.Size()) {
		t.Errorf("%v is not what it was", b)
	}
}
