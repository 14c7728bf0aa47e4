package blocktest

import (
	"math/bits"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// held is a block with what its bytes must be.
type held struct {
	block blockalloc.Block
	size  uintptr
	seed  int
}

// concurrent has goroutines allocate, write, pass on to each other, reallocate,
// check and free, so that a block given out twice is found by its content.
func (s suite) concurrent(t *testing.T) {
	const steps = 400
	workers := max(1, min(8, s.MaxLive/4)) // one block held, one passed on, one that it grows into
	a := s.New(t)
	hold := max(1, s.MaxLive/(4*workers))
	passed := make(chan held, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(1, uint64(w)))
			var mine []held
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
					h = resize(t, a, h, s.someSize(rnd))
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
}

// someSize returns a size of up to 16 KiB.
func (s suite) someSize(rnd *rand.Rand) uintptr {
	return 1 + uintptr(rnd.UintN(uint(min(16<<10, s.MaxSize))))
}

func (s suite) acquire(t testing.TB, a blockalloc.Allocator, rnd *rand.Rand, seed int) held {
	l := layout(s.someSize(rnd), 1<<rnd.IntN(bits.Len(uint(s.size))))
	b, err := a.Allocate(l)
	if err != nil {
		t.Errorf("Allocate(%v): %v", l, err)
		return held{}
	}
	check(t, b, l)
	fill(b, l.Size, seed)
	return held{b, l.Size, seed}
}

func resize(t testing.TB, a blockalloc.Allocator, h held, size uintptr) held {
	if h.block.IsZero() {
		return h
	}
	b, err := a.Reallocate(h.block, size)
	if err != nil {
		t.Errorf("Reallocate(%v, %d): %v", h.block, size, err)
		return h
	}
	if err := filled(b, min(h.size, size), h.seed); err != nil {
		t.Errorf("Reallocate(%v, %d): %v", h.block, size, err)
	}
	fill(b, size, h.seed)
	return held{b, size, h.seed}
}

func release(t testing.TB, a blockalloc.Allocator, h held) {
	if err := filled(h.block, h.size, h.seed); err != nil {
		t.Errorf("before Free: %v", err)
	}
	free(t, a, h.block)
}
