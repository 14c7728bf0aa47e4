package blockalloc_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/shard/shardtest"
)

// slabSteps is how many operations a goroutine of a storm makes.
func slabSteps() int {
	if raceEnabled || testing.Short() || runtime.GOARCH == "wasm" {
		return 10_000
	}
	return 60_000
}

// A slabGift is a block that one goroutine allocated and filled, and another checks and
// frees.
type slabGift struct {
	block blockalloc.Block
	mark  byte
}

func (g slabGift) check() error {
	for i, v := range g.block.Bytes() {
		if v != g.mark {
			return fmt.Errorf("byte %d of %v is %#x, want %#x", i, g.block, v, g.mark)
		}
	}
	return nil
}

func newGift(s *blockalloc.Slab, size uintptr, mark byte) (slabGift, error) {
	b, err := s.Allocate(blockalloc.Layout{Size: size, Align: 8})
	if err != nil {
		return slabGift{}, err
	}
	for i := range b.Bytes() {
		b.Bytes()[i] = mark
	}
	return slabGift{b, mark}, nil
}

// TestSlabStorm has goroutines allocate, check, free and pass on to each other, while
// others trim, read the figures, and try to close. Blocks are small, so that they are
// full or empty all the time. One block stays live, so that no Close succeeds.
func TestSlabStorm(t *testing.T) {
	for name, newParent := range slabParents() {
		t.Run(name, func(t *testing.T) {
			s := newSlab(t, newParent(t), 4<<10)
			s.MaxEmpty = -1
			pin := slabAllocate(t, s, 512)
			const workers = 4
			gifts := make(chan slabGift, 64)
			var wg sync.WaitGroup
			for w := range workers {
				wg.Go(func() {
					rnd := rand.New(rand.NewPCG(1, uint64(w)))
					var mine []slabGift
					give := func(g slabGift) {
						if err := g.check(); err != nil {
							t.Error(err)
						}
						if err := s.Free(g.block); err != nil {
							t.Error(err)
						}
					}
					for i := range slabSteps() {
						switch n := rnd.IntN(8); {
						case n < 4 && len(mine) < 40:
							size := uintptr(512) // eight a block
							if n == 0 {
								size = 1 + uintptr(rnd.IntN(1000))
							}
							g, err := newGift(s, size, byte(i))
							if err != nil {
								t.Error(err)
								return
							}
							mine = append(mine, g)
						case len(mine) == 0:
						case n == 4:
							select {
							case gifts <- mine[len(mine)-1]: // somebody else frees it
								mine = mine[:len(mine)-1]
							case g := <-gifts:
								give(g)
							}
						default:
							at := rnd.IntN(len(mine))
							give(mine[at])
							mine[at] = mine[len(mine)-1]
							mine = mine[:len(mine)-1]
						}
						if i%2000 == 1999 { // let all blocks become empty
							for _, g := range mine {
								give(g)
							}
							mine = nil
						}
					}
					for _, g := range mine {
						give(g)
					}
				})
			}
			var over atomic.Bool
			var meddlers sync.WaitGroup
			meddlers.Go(func() {
				for !over.Load() {
					if err := s.Trim(); err != nil {
						t.Error(err)
					}
					if err := s.Close(); !errors.Is(err, blockalloc.ErrLive) {
						t.Errorf("Close with a live block: error %v, want ErrLive", err)
						return
					}
					if st := s.Stats(); st.LiveSlots < 1 || st.Blocks < 1 || st.LiveSlotBytes > st.BlockBytes {
						t.Errorf("with a live block: %+v", st)
					}
					if b, ok := s.Find(pin.Pointer()); !ok || b.Addr() != pin.Addr() || !s.Owns(pin) {
						t.Errorf("Find of the live block = %v", b)
					}
					runtime.Gosched()
				}
			})
			wg.Wait()
			over.Store(true)
			meddlers.Wait()
			for len(gifts) > 0 {
				slabFree(t, s, (<-gifts).block)
			}
			if st := s.Stats(); st.LiveSlots != 1 || st.LargeBlocks != 0 {
				t.Errorf("at rest with one live block: %+v", st)
			}
			slabFree(t, s, pin)
			closeSlab(t, s)
		})
	}
}

// TestSlabProducers: some goroutines only allocate and others only free, and memory
// does not grow by that.
func TestSlabProducers(t *testing.T) {
	parent := newSlabParent(t)
	s := newSlab(t, parent, 4<<10)
	const pairs, queue = 2, 100
	peak := 0
	var wg sync.WaitGroup
	for w := range pairs {
		gifts := make(chan slabGift, queue)
		wg.Go(func() {
			defer close(gifts)
			for i := range slabSteps() {
				g, err := newGift(s, 64, byte(i+w))
				if err != nil {
					t.Error(err)
					return
				}
				gifts <- g
				if w == 0 && i%100 == 0 {
					peak = max(peak, parent.blocks())
				}
			}
		})
		wg.Go(func() {
			for g := range gifts {
				if err := g.check(); err != nil {
					t.Error(err)
				}
				if err := s.Free(g.block); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	// At most pairs*(queue+2) slots are live, of which 64 are in a block. Each of 64
	// shards may have a block of its own, and what is partly used may be twice as much.
	if most := 64 + 1 + 2*pairs*(queue+2)/64 + pairs; peak > most {
		t.Errorf("the parent had %d live blocks, want at most %d", peak, most)
	}
	closeSlab(t, s)
}

// TestSlabDoubleFreeStorm: of many frees of one slot at once, one succeeds. That also
// holds if the slot was its block's last, and the block goes back to the parent or is
// cut for another class meanwhile.
func TestSlabDoubleFreeStorm(t *testing.T) {
	rounds := slabSteps() / 20
	for name, l := range map[string]struct {
		size          uintptr
		current, last bool
	}{"current": {512, true, false}, "full": {512, false, false}, "last": {512, false, true}, "large": {1000, false, false}} {
		t.Run(name, func(t *testing.T) {
			shardtest.OneShard(t)
			parent := newSlabParent(t)
			s := newSlab(t, parent, 4<<10)
			s.MaxEmpty = -1
			for i := range rounds {
				b := slabAllocate(t, s, l.size)
				var others []blockalloc.Block
				if !l.current { // fill its block, and have another be current
					for range 8 {
						others = append(others, slabAllocate(t, s, l.size))
					}
				}
				if l.last {
					slabFree(t, s, others[:7]...)
					others = others[7:]
				}
				var freed atomic.Int64
				var wg sync.WaitGroup
				for range 3 {
					wg.Go(func() {
						if err := s.Free(b); err == nil {
							freed.Add(1)
						} else if !errors.Is(err, blockalloc.ErrDoubleFree) && (!l.last || !errors.Is(err, blockalloc.ErrNotOwned)) {
							t.Errorf("Free: error %v, want ErrDoubleFree", err)
						}
					})
				}
				other := slabAllocate(t, s, 16+uintptr(i)%400)
				wg.Wait()
				if n := freed.Load(); n != 1 {
					t.Fatalf("%d of 3 frees of one block succeeded, want 1", n)
				}
				if err := s.Free(other); err != nil {
					t.Fatalf("Free(%v), which was allocated meanwhile: %v", other, err)
				}
				slabFree(t, s, others...)
				if st := s.Stats(); st.LiveSlots != 0 || st.LargeBlocks != 0 {
					t.Fatalf("when all is freed: %+v", st)
				}
			}
			closeSlab(t, s)
		})
	}
}

// TestSlabSteals: when the parent is out of memory, goroutines find the free slots of
// other shards and the empty blocks of other classes.
func TestSlabSteals(t *testing.T) {
	const slots = 8
	mem := alloctest.New(t)
	for i := range 200 {
		if i == 100 {
			shardtest.OneShard(t)
		}
		parent := slabParentOf(mem)
		parent.limit = 2
		s := newSlab(t, parent, 4<<10)
		for _, size := range []uintptr{512, 400, 5000, 40} { // each time all of the parent's memory
			n := 2 * int(4<<10/size)
			if size > 512 {
				n = 2
			}
			n = min(n, 2*slots)
			var held [2 * slots]blockalloc.Block
			var wg sync.WaitGroup
			for i := range n {
				wg.Go(func() {
					var err error
					if held[i], err = s.Allocate(blockalloc.Layout{Size: size, Align: 8}); err != nil {
						t.Errorf("Allocate of %d bytes as number %d of %d: %v", size, i+1, n, err)
					}
				})
			}
			wg.Wait()
			for i := range n {
				slabFree(t, s, held[i])
			}
		}
		closeSlab(t, s)
	}
}

// TestSlabTrimStorm: blocks that become empty and full by one slot are trimmed all the
// time, while goroutines still allocate in them.
func TestSlabTrimStorm(t *testing.T) {
	for _, l := range []struct {
		size  uintptr
		first int // slots that are live for a while, so that the next are in the second word
		live  int // slots that are live all the time
	}{{512, 0, 0}, {64, 40, 0}, {512, 0, 7}} { // 8 slots in one word, 64 in two
		parent := newSlabParent(t)
		s := newSlab(t, parent, 4<<10)
		s.MaxEmpty = -1
		var wg sync.WaitGroup
		var over atomic.Bool
		for w := range 2 {
			wg.Go(func() {
				var held []blockalloc.Block
				for range l.live {
					held = append(held, slabAllocate(t, s, l.size))
				}
				for i := 0; !over.Load() && !t.Failed(); i++ {
					if l.first > 0 && i%100 == 0 {
						var first []blockalloc.Block
						for range l.first {
							first = append(first, slabAllocate(t, s, l.size))
						}
						slabFree(t, s, first...)
					}
					g, err := newGift(s, l.size, byte(i*2+w))
					if err != nil {
						t.Error(err)
						break
					}
					if err := g.check(); err != nil {
						t.Error(err)
					}
					if err := s.Free(g.block); err != nil {
						t.Error(err)
					}
				}
				slabFree(t, s, held...)
			})
		}
		for range slabSteps() / 2 {
			if err := s.Trim(); err != nil {
				t.Error(err)
			}
		}
		over.Store(true)
		wg.Wait()
		closeSlab(t, s)
	}
}

// TestSlabLastSlot: two goroutines pass on the only slot that is not pinned. Once freed
// it can be allocated, though the block was found full just before.
func TestSlabLastSlot(t *testing.T) {
	parent := newSlabParent(t)
	parent.limit = 1
	s := newSlab(t, parent, 4<<10)
	var pinned []blockalloc.Block
	for range 7 {
		pinned = append(pinned, slabAllocate(t, s, 512))
	}
	var given atomic.Pointer[blockalloc.Block]
	var wg sync.WaitGroup
	var over atomic.Bool
	wg.Go(func() {
		for spins := 0; !over.Load(); spins++ {
			if b := given.Load(); b != nil {
				if err := s.Free(*b); err != nil {
					t.Error(err)
				}
				given.Store(nil)
			} else if spins%64 == 0 { // there may be no other processor
				runtime.Gosched()
			}
		}
	})
	for i := range slabSteps() / 20 {
		b := slabAllocate(t, s, 512)
		given.Store(&b)
		for range i % 64 { // come sooner or later than the other
			over.Load()
		}
		for spins := 1; ; spins++ {
			freed := given.Load() == nil
			again, err := s.Allocate(blockalloc.Layout{Size: 512, Align: 8})
			if err == nil {
				for given.Load() != nil {
					runtime.Gosched()
				}
				slabFree(t, s, again)
				break
			}
			if !errors.Is(err, blockalloc.ErrOutOfMemory) || freed {
				t.Fatalf("Allocate after %v was freed: %v", b, err)
			}
			if spins%8 == 0 {
				runtime.Gosched()
			}
		}
	}
	over.Store(true)
	wg.Wait()
	slabFree(t, s, pinned...)
	closeSlab(t, s)
}

// TestSlabCloseRaces: Close comes between two Allocates, or is refused. What was
// allocated was allocated before the Slab closed.
func TestSlabCloseRaces(t *testing.T) {
	mem := alloctest.New(t)
	for i := range slabSteps() / 40 {
		parent := slabParentOf(mem)
		s := newSlab(t, parent, 4<<10)
		var wg sync.WaitGroup
		for w := range 2 {
			wg.Go(func() {
				for n := 0; ; n++ {
					size := uintptr(n*8%600 + 8) // a new class each time, and some for the parent
					if w == 0 && i%2 == 0 {
						size = 1000
					}
					b, err := s.Allocate(blockalloc.Layout{Size: size, Align: 8})
					if err == nil {
						err = s.Free(b)
					}
					if errors.Is(err, blockalloc.ErrClosed) {
						return
					}
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
		for n := 0; ; n++ {
			if err := s.Close(); err == nil {
				break
			} else if !errors.Is(err, blockalloc.ErrLive) {
				t.Fatalf("Close: error %v, want ErrLive", err)
			}
			runtime.Gosched()
		}
		wg.Wait()
		if n := parent.blocks(); n != 0 {
			t.Fatalf("%d blocks were taken from the parent when the Slab was closed", n)
		}
	}
}
