package backstop_test

import (
	"context"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/backstop"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
)

// rounds is how many operations a goroutine of a storm does.
func rounds() int {
	if os.Getenv("ALLOCTRACE_REQUIRE_ALL") != "" {
		return 200_000
	}
	return 5_000
}

// A storm is goroutines that allocate, free and drop, and the model of what they have done.
type storm struct {
	s                *backstop.Backstop
	allocated, freed atomic.Int64 // blocks
	handed           chan *[]byte
}

// write marks all of a block's memory with who has it.
func write(memory []byte, id uint64) {
	for len(memory) >= 8 {
		binary.LittleEndian.PutUint64(memory, id)
		memory = memory[8:]
	}
}

func check(t *testing.T, memory []byte, id uint64) {
	for ; len(memory) >= 8; memory = memory[8:] {
		if got := binary.LittleEndian.Uint64(memory); got != id {
			t.Errorf("a block that is held has %#x in it, want %#x", got, id)
			return
		}
	}
}

// run does n operations. All handles that it has at the end are dropped.
func (m *storm) run(t *testing.T, n int, random *rand.Rand) {
	type held struct {
		handle *[]byte
		id     uint64
	}
	var mine []held
	for range n {
		switch op := random.IntN(100); {
		case op < 45 || len(mine) == 0:
			handle, err := m.s.Allocate(layout(uintptr(8 * (1 + random.IntN(300)))))
			if errors.Is(err, blockalloc.ErrOutOfMemory) {
				continue
			} else if err != nil {
				t.Error(err)
				return
			}
			m.allocated.Add(1)
			h := held{handle, random.Uint64()}
			write(*handle, h.id)
			mine = append(mine, h)
		default:
			i := random.IntN(len(mine))
			h := mine[i]
			mine[i] = mine[len(mine)-1]
			mine[len(mine)-1] = held{}
			mine = mine[:len(mine)-1]
			check(t, *h.handle, h.id)
			switch {
			case op < 75: // free
				by := func() error { return m.s.Free(h.handle) }
				if op < 60 {
					memory := (*h.handle)[:1]
					by = func() error { return m.s.FreeBytes(memory) }
				}
				err := by()
				for errors.Is(err, failing.ErrInjected) {
					check(t, *h.handle, h.id)
					err = by()
				}
				if err != nil {
					t.Error(err)
				}
				runtime.KeepAlive(h.handle)
				m.freed.Add(1)
			case op < 85: // hand over, and take another one's
				select {
				case m.handed <- h.handle:
				case other := <-m.handed:
					id := random.Uint64()
					write(*other, id)
					mine = append(mine, held{other, id})
				default: // dropped
				}
			default: // dropped
			}
		}
		if random.IntN(1000) == 0 {
			runtime.GC()
		}
	}
}

// TestStorm: whatever goroutines do at once, no block is freed while its handle is held, each is freed once, and
// the counts are right at the end.
func TestStorm(t *testing.T) {
	for name, fail := range map[string]func(blockalloc.Allocator) blockalloc.Allocator{
		"plain": func(a blockalloc.Allocator) blockalloc.Allocator { return a },
		"failing": func(a blockalloc.Allocator) blockalloc.Allocator {
			var frees atomic.Int64
			return failing.If(a, func(c failing.Call) bool { return c.Op == failing.OpFree && frees.Add(1)%7 == 0 })
		},
	} {
		t.Run(name, func(t *testing.T) {
			mem := alloctest.New(t)
			var lost sync.Map // blocks whose free failed when they were dropped
			inner := fail(mem)
			var reported, failed atomic.Int64
			m := storm{handed: make(chan *[]byte, 16)}
			m.s = backstop.New(alloctrace.Wrap(&losing{inner, &lost}), backstop.Options{OnDrop: func(d backstop.Drop) {
				reported.Add(1)
				if d.Err != nil {
					failed.Add(1)
				}
			}})
			var wg sync.WaitGroup
			for g := range 4 {
				wg.Go(func() { m.run(t, rounds(), rand.New(rand.NewPCG(uint64(g), 7))) })
			}
			wg.Wait()
			m.handed = nil
			collect(t)
			got := m.s.Stats()
			dropped := m.allocated.Load() - m.freed.Load()
			if got.LiveBlocks != 0 || got.LiveBytes != 0 || got.DroppedBlocks+got.FailedBlocks != dropped || reported.Load() != dropped || failed.Load() != got.FailedBlocks {
				t.Errorf("the stats are %+v, with %d reported and %d failed; want %d dropped", got, reported.Load(), failed.Load(), dropped)
			}
			if dropped < m.allocated.Load()/10 || m.freed.Load() < m.allocated.Load()/10 {
				t.Errorf("of %d blocks %d were dropped and %d freed: not enough of both", m.allocated.Load(), dropped, m.freed.Load())
			}
			live := mem.Stats()
			if live.LiveBlocks != got.FailedBlocks || live.LiveBytes != got.FailedBytes {
				t.Errorf("%d blocks of %d bytes are live below, want those that could not be freed: %+v", live.LiveBlocks, live.LiveBytes, got)
			}
			lost.Range(func(block, _ any) bool {
				b := block.(blockalloc.Block)
				if mem.Owns(b) {
					if err := mem.Free(b); err != nil {
						t.Error(err)
					}
				}
				return true
			})
		})
	}
}

// losing remembers the blocks whose last free has failed.
type losing struct {
	blockalloc.Allocator
	lost *sync.Map
}

func (l *losing) Free(b blockalloc.Block) error {
	l.lost.Delete(b)
	err := l.Allocator.Free(b)
	if err != nil {
		l.lost.Store(b, nil)
	}
	return err
}

// TestFreeOnce: of those who free a handle at once, one does.
func TestFreeOnce(t *testing.T) {
	s := backstop.New(alloctest.New(t), backstop.Options{})
	for range 1000 {
		handle := allocate(t, s, 64)
		memory := *handle
		var done, refused atomic.Int32
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				switch err := s.FreeBytes(memory); {
				case err == nil:
					done.Add(1)
				case errors.Is(err, blockalloc.ErrNotOwned):
					refused.Add(1)
				default:
					t.Error(err)
				}
			})
		}
		wg.Wait()
		runtime.KeepAlive(handle)
		if done.Load() != 1 || refused.Load() != 2 {
			t.Fatalf("%d frees were done and %d refused, want 1 and 2", done.Load(), refused.Load())
		}
	}
	collect(t)
	wantStats(t, s, backstop.Stats{})
}

// TestCollectIsComplete: after Collect nothing that was dropped before is live, however often, also while others
// drop and collect.
func TestCollectIsComplete(t *testing.T) {
	var wg sync.WaitGroup
	var stop atomic.Bool
	other := backstop.New(alloctest.New(t), backstop.Options{NoStacks: true})
	wg.Go(func() {
		for !stop.Load() {
			dropSome(t, other, 10, 64)
			runtime.GC()
		}
	})
	s := backstop.New(alloctest.New(t), backstop.Options{NoStacks: true})
	for i := range int64(25 + rounds()/1000) {
		dropSome(t, s, 5, 64)
		if err := backstop.Collect(context.Background()); err != nil {
			t.Fatal(err)
		}
		if got := s.Stats(); got.LiveBlocks != 0 || got.DroppedBlocks != 5*(i+1) {
			t.Fatalf("after %d rounds the stats are %+v", i+1, got)
		}
	}
	stop.Store(true)
	wg.Wait()
}
