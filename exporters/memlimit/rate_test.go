package memlimit

import (
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// placement is where a workload has its large memory.
type placement string

const (
	onHeap  placement = "heap"    // where Go counts it
	unpaced placement = "offheap" // where Go does not
	paced   placement = "paced"   // where Go does not, with a Pacer
)

var placements = []placement{onHeap, unpaced, paced}

// workload is a program with large memory that stays, a small heap that stays, and garbage, in bytes.
type workload struct{ large, live, garbage int64 }

// node has a pointer, so that the collector looks into it.
type node struct {
	_ *node
	_ [4096 - 8]byte
}

// run makes the garbage and returns how many collections that took. It has measure called with what makes it.
func (w workload) run(tb testing.TB, at placement, measure func(work func())) (collections int64) {
	tb.Helper()
	var large []byte
	if at == onHeap {
		large = make([]byte, w.large)
	} else {
		mem := alloctrace.Wrap(new(blockalloc.System))
		b, err := mem.Allocate(blockalloc.Layout{Size: uintptr(w.large), Align: 4096})
		if err != nil {
			tb.Fatal(err)
		}
		defer mem.Free(b)
		if at == paced {
			defer newTestPacer(tb, PacerOptions{}, mem).Close()
		}
	}
	live := make([]*node, max(1, w.live/4096))
	for i := range live {
		live[i] = new(node)
	}
	litter := func(size int64) {
		for range size / 4096 {
			live[rand.IntN(len(live))] = new(node)
		}
	}
	litter(6 * (w.large + w.live)) // the heap is as large as it becomes, and its memory is there
	runtime.GC()
	c := newCollector()
	c.read()
	before := c.cycles()
	measure(func() { litter(w.garbage) })
	c.read()
	runtime.KeepAlive(large)
	return c.cycles() - before
}

// TestCollectionRate: the same garbage takes as many collections with a Pacer as with the memory on the heap, and many more
// without. Where the trigger is depends on how fast the machine makes garbage and marks what is live: on one that is busy
// with something else in between, several attempts may be needed.
func TestCollectionRate(t *testing.T) {
	atGOGC100(t)
	for name, w := range map[string]workload{
		"heap":      {large: 24 * mib, live: 4 * mib, garbage: 256 * mib},
		"tiny heap": {large: 24 * mib, live: 64 << 10, garbage: 256 * mib}, // paced by the least goal
	} {
		t.Run(name, func(t *testing.T) {
			n := make(map[placement]int64)
			for range 20 {
				for _, at := range placements {
					n[at] += w.run(t, at, func(work func()) { work() })
				}
				t.Logf("%v collections", n)
				ratio := float64(n[paced]) / float64(n[onHeap])
				if ratio > 0.85 && ratio < 1.15 && n[unpaced] > n[onHeap]*3/2 {
					return
				}
			}
			t.Errorf("%v collections: want paced within 15 %% of heap, and half as many again offheap", n)
		})
	}
}
