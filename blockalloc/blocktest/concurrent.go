package blocktest

import (
	"math/bits"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// filledBlock is a block with its content.
type filledBlock struct {
	block blockalloc.Block
	size  uintptr
	seed  int
}

// unlessShort returns n, or short with -short.
func unlessShort(n, short int) int {
	if testing.Short() {
		return short
	}
	return n
}

// concurrent has goroutines allocate, write, pass on, reallocate, check and free. A
// block that is given out twice is found by its content.
func (s suite) concurrent(t *testing.T) {
	steps := unlessShort(400, 150)
	workers := max(1, min(8, s.MaxLive/4)) // one block held, one passed on, one that it grows into
	a := s.New(t)
	hold := max(1, s.MaxLive/(4*workers))
	passed := make(chan filledBlock, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(w)))
			var mine []filledBlock
			for i := range steps {
				if len(mine) < hold && rnd.IntN(2) == 0 {
					mine = append(mine, s.acquire(t, a, rnd, w*steps+i))
					continue
				}
				if len(mine) == 0 {
					continue
				}
				last := len(mine) - 1
				h := mine[last]
				mine = mine[:last]
				if rnd.IntN(8) == 0 {
					h = s.resize(t, a, h, s.someSize(rnd))
				}
				select {
				case passed <- h: // somebody else frees it
					h = <-passed
				default:
				}
				release(t, a, h)
			}
			for _, h := range mine {
				release(t, a, h)
			}
		})
	}
	wg.Wait()
	close(passed)
	for h := range passed {
		release(t, a, h)
	}
	s.accounts(t, a, "when all is freed")
}

// concurrentHandOver has some goroutines allocate and others free: what is freed
// far from where it was allocated must come back there.
func (s suite) concurrentHandOver(t *testing.T) {
	each := unlessShort(400, 150)
	a := s.New(t)
	pairs := max(1, min(4, s.MaxLive/2))
	tokens := make(chan struct{}, max(1, s.MaxLive/2)) // one for each live block; each may be moved by a reallocation
	passed := make(chan filledBlock, cap(tokens))
	var producers, consumers sync.WaitGroup
	for w := range pairs {
		producers.Go(func() {
			rnd := rand.New(rand.NewPCG(2, uint64(w)))
			for i := range each {
				tokens <- struct{}{}
				passed <- s.acquire(t, a, rnd, w*each+i)
			}
		})
		consumers.Go(func() {
			rnd := rand.New(rand.NewPCG(3, uint64(w)))
			for h := range passed {
				if rnd.IntN(4) == 0 {
					h = s.resize(t, a, h, s.someSize(rnd))
				}
				release(t, a, h)
				<-tokens
			}
		})
	}
	producers.Wait()
	close(passed)
	consumers.Wait()
	s.accounts(t, a, "when all is freed")
}

// concurrentDoubleFree frees each block from several goroutines at once, by Free and
// Reallocate. One of them must succeed.
func (s suite) concurrentDoubleFree(t *testing.T) {
	const workers = 4
	rounds := unlessShort(16, 6)
	a := s.New(t)
	for round := range rounds {
		blocks, live := make([]blockalloc.Block, 0, min(s.MaxLive, 64)), spans[int]{}
		for i := range cap(blocks) {
			b, err := a.Allocate(blockalloc.BlockLayout(s.size))
			if s.Arena && outOfRoom(err) {
				break
			}
			if err == nil {
				err = live.insert(b, i) // a place that was given back twice is given out twice
			}
			if err != nil {
				t.Fatal(err)
			}
			blocks = append(blocks, b)
		}
		freed := make([]atomic.Int32, len(blocks))
		var wg sync.WaitGroup
		start := make(chan struct{})
		for w := range workers {
			wg.Go(func() {
				<-start
				for i := range blocks {
					at := i // in half of the rounds all meet at each block
					if round%2 == 1 {
						at = (i + w*len(blocks)/workers) % len(blocks)
					}
					if s.freeOneWay(t, a, blocks[at], (w+i)%2 == 0) {
						freed[at].Add(1)
					}
				}
			})
		}
		close(start)
		wg.Wait()
		for i := range freed {
			if n := freed[i].Load(); n != 1 {
				t.Fatalf("%d of %d frees of %v succeeded, want 1", n, workers, blocks[i])
			}
		}
		s.accounts(t, a, "when all is freed")
	}
}

// freeOneWay frees b, which may not be live, by Free or by Reallocate to zero.
func (s suite) freeOneWay(t *testing.T, a blockalloc.Allocator, b blockalloc.Block, reallocate bool) bool {
	var n blockalloc.Block
	var err error
	if reallocate {
		n, err = a.Reallocate(b, 0)
	} else {
		err = a.Free(b)
	}
	if err == nil && !n.IsZero() || err != nil && !notLive(err) {
		t.Errorf("free of %v = %v, %v; want no error, or ErrDoubleFree or ErrNotOwned", b, n, err)
	}
	return err == nil
}

// someSize returns a size of up to 16 KiB, or of the usual block if s is Bounded.
func (s suite) someSize(rnd *rand.Rand) uintptr {
	most := min(16<<10, s.MaxSize)
	if s.Bounded {
		most = s.size
	}
	return 1 + uintptr(rnd.UintN(uint(most)))
}

// acquire allocates a block, or none if an arena has no more.
func (s suite) acquire(t testing.TB, a blockalloc.Allocator, rnd *rand.Rand, seed int) filledBlock {
	l := layout(s.someSize(rnd), 1<<rnd.IntN(bits.Len(uint(s.size))))
	l.Zeroed = rnd.IntN(2) == 0
	b, err := a.Allocate(l)
	if err != nil {
		if !s.Arena || !outOfRoom(err) {
			t.Errorf("Allocate(%v): %v", l, err)
		}
		return filledBlock{}
	}
	check(t, b, l)
	if l.Zeroed {
		if err := cleared(b); err != nil {
			t.Error(err)
		}
	}
	fill(b, l.Size, seed)
	return filledBlock{b, l.Size, seed}
}

func (s suite) resize(t testing.TB, a blockalloc.Allocator, h filledBlock, size uintptr) filledBlock {
	if h.block.IsZero() {
		return h
	}
	b, err := a.Reallocate(h.block, size)
	if err != nil {
		if !s.Arena || !outOfRoom(err) || b != h.block {
			t.Errorf("Reallocate(%v, %d): %v", h.block, size, err)
		}
		return h
	}
	if err := filled(b, min(h.size, size), h.seed); err != nil {
		t.Errorf("Reallocate(%v, %d): %v", h.block, size, err)
	}
	if h.block.Layout().Zeroed {
		if err := clearedFrom(b, h.block.Size()); err != nil {
			t.Errorf("Reallocate(%v, %d): %v", h.block, size, err)
		}
	}
	fill(b, size, h.seed)
	return filledBlock{b, size, h.seed}
}

func release(t testing.TB, a blockalloc.Allocator, h filledBlock) {
	if err := filled(h.block, h.size, h.seed); err != nil {
		t.Errorf("before Free: %v", err)
	}
	free(t, a, h.block)
}
