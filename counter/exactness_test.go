package counter

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"os"
	"sync"
	"testing"
)

// TestExactness has goroutines allocate blocks of random sizes, which others free. All
// are counted in a Counter and in one whose peak is exact. At rest totals and live
// bytes are those of the goroutines' own books, and the two peaks differ by no more than
// the bound says, and the operations that were counted in one and not yet in the other.
// CI counts a hundred million operations; elsewhere it is less.
func TestExactness(t *testing.T) {
	operations := 800_000
	if os.Getenv("ALLOCTRACE_REQUIRE_ALL") != "" {
		operations = 100_000_000
	}
	for _, workers := range []int{2, 4, 16, 64} {
		t.Run(fmt.Sprint(workers), func(t *testing.T) { exactness(t, workers, operations/4) })
	}
}

// A mailbox holds the sizes of blocks for one goroutine to free.
type mailbox struct {
	mu    sync.Mutex
	sizes []uintptr
}

const (
	letter  = 32       // blocks go from one goroutine to another in letters
	largest = 40 << 10 // bytes
)

// asked is how many bytes are asked for where n are granted.
func asked(n uintptr) uintptr {
	if bits.Len(uint(n))%2 == 0 {
		return n
	}
	return max(1, n-n%5)
}

func exactness(t *testing.T, workers, operations int) {
	c, exact := new(Counter), Exact()
	boxes := make([]mailbox, workers)
	books := make([]Stats, workers)
	var wg sync.WaitGroup
	for w := range workers {
		wg.Go(func() {
			rnd := rand.New(rand.NewPCG(uint64(w), uint64(workers)))
			book := &books[w]
			size := func() uintptr {
				if rnd.IntN(4) == 0 {
					return 1 + uintptr(rnd.UintN(largest))
				}
				return 1 << rnd.IntN(16)
			}
			free := func(sizes []uintptr) {
				for _, n := range sizes {
					c.Free(asked(n), n)
					exact.Free(asked(n), n)
					book.Frees++
					book.FreedBytes += int64(n)
				}
			}
			for done := 0; done < operations/workers; {
				mail := make([]uintptr, 0, letter)
				for range letter {
					n := size()
					c.Allocate(asked(n), n)
					exact.Allocate(asked(n), n)
					book.Allocations++
					book.AllocatedBytes += int64(n)
					book.RequestedBytes += int64(asked(n))
					if rnd.IntN(4) == 0 {
						m := size()
						c.Reallocate(asked(n), n, asked(m), m)
						exact.Reallocate(asked(n), n, asked(m), m)
						book.Reallocations++
						book.AllocatedBytes += int64(m)
						book.RequestedBytes += int64(asked(m))
						book.FreedBytes += int64(n)
						n = m
					}
					mail = append(mail, n)
				}
				to := &boxes[rnd.IntN(workers)]
				to.mu.Lock()
				to.sizes = append(to.sizes, mail...)
				to.mu.Unlock()
				mine := &boxes[w]
				mine.mu.Lock()
				sizes := mine.sizes
				mine.sizes = nil
				mine.mu.Unlock()
				free(sizes)
				done += letter*5/4 + len(sizes)
			}
		})
	}
	wg.Wait()
	var want Stats
	for w := range workers {
		want.Allocations += books[w].Allocations
		want.RequestedBytes += books[w].RequestedBytes
		want.Reallocations += books[w].Reallocations
		want.Frees += books[w].Frees
		want.AllocatedBytes += books[w].AllocatedBytes
		want.FreedBytes += books[w].FreedBytes
		want.LiveBlocks += int64(len(boxes[w].sizes))
		for _, n := range boxes[w].sizes {
			want.LiveBytes += int64(n)
			want.LiveRequestedBytes += int64(asked(n))
		}
	}
	for name, got := range map[string]Stats{"default": c.Stats(), "exact": exact.Stats()} {
		want.PeakBytes, want.PeakBound, want.Classes = got.PeakBytes, got.PeakBound, got.Classes
		if got != want {
			t.Errorf("%s: %+v\nwant %+v", name, got, want)
		}
	}
	s, e := c.Stats(), exact.Stats()
	underWay := int64(workers) * 2 * largest
	if e.PeakBound != 0 || abs(s.PeakBytes-e.PeakBytes) > s.PeakBound+underWay {
		t.Errorf("peak %d with a bound of %d; exactly it is %d", s.PeakBytes, s.PeakBound, e.PeakBytes)
	}
	t.Logf("%d operations: peak %s ± %s, exactly %s", s.Allocations+s.Reallocations+s.Frees,
		FormatBytes(s.PeakBytes), FormatBytes(s.PeakBound), FormatBytes(e.PeakBytes))
}
