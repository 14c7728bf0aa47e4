package memlimit

import (
	"math"
	"math/rand/v2"
	"testing"
)

func TestPace(t *testing.T) {
	for _, c := range []struct {
		name                   string
		heap                   heap
		base                   int
		offHeap, garbage, goal int64
		percent                int
		want                   int64 // what the runtime's goal is then
	}{
		{"as on the heap", heap{10 * mib, 0}, 100, 90 * mib, math.MaxInt64, 110 * mib, 1000, 110 * mib},
		{"with stacks and globals", heap{10 * mib, 10 * mib}, 100, 80 * mib, math.MaxInt64, 110 * mib, 500, 110 * mib},
		{"by a lower GOGC", heap{10 * mib, 0}, 50, 90 * mib, math.MaxInt64, 60 * mib, 500, 60 * mib},
		{"nothing off-heap", heap{10 * mib, 0}, 100, 0, math.MaxInt64, 20 * mib, 100, 20 * mib},
		{"less than nothing", heap{10 * mib, 0}, 100, -5, math.MaxInt64, 20 * mib, 100, 20 * mib},
		{"a tiny heap goes by the least goal", heap{mib, 0}, 100, 255 * mib, math.MaxInt64, 257 * mib, 6425, 257 * mib},
		{"no collection yet", heap{0, 0}, 100, 256 * mib, math.MaxInt64, 256 * mib, 6400, 256 * mib},
		{"a little off-heap does not make up the least goal", heap{mib, 0}, 100, mib, math.MaxInt64, 3 * mib, 100, 4 * mib},
		{"a bound on garbage", heap{10 * mib, 0}, 100, 90 * mib, 20 * mib, 30 * mib, 200, 30 * mib},
		{"no less than GOGC", heap{10 * mib, 0}, 100, 90 * mib, 2 * mib, 12 * mib, 100, 20 * mib},
		{"no room", heap{10 * mib, 0}, 100, 90 * mib, 0, 10 * mib, 100, 20 * mib},
		{"GOGC=0", heap{10 * mib, 0}, 0, 90 * mib, math.MaxInt64, 10 * mib, 0, 10 * mib},
		{"more than there can be", heap{4 * mib, 0}, 100, math.MaxInt64, math.MaxInt64, 4 * mib, 100, 8 * mib},
		{"the highest percentage", heap{4 * mib, 0}, 100, 1 << 50, math.MaxInt64, 1<<50 + 8*mib, math.MaxInt32, 4*mib + 4*mib*math.MaxInt32/100},
	} {
		goal := c.heap.pacedGoal(c.base, c.offHeap, c.garbage)
		percent := c.heap.pace(c.base, goal)
		if got := c.heap.goal(percent); goal != c.goal || percent != c.percent || got != c.want {
			t.Errorf("%s: goal %d, percent %d, by which the goal is %d; want %d, %d, %d", c.name, goal, percent, got, c.goal, c.percent, c.want)
		}
	}
}

// TestPaceBounds: whatever there is, the goal is that of GOGC at least, and no higher than as if all were on the heap; and it
// is that but for a hundredth of what the percentage is of.
func TestPaceBounds(t *testing.T) {
	size := func() int64 { return rand.Int64N(1 << rand.IntN(44)) }
	for range 100_000 {
		h, base, offHeap := heap{size(), size() >> 8}, rand.IntN(1<<rand.IntN(12)), size()
		with := heap{h.live + offHeap, h.roots}
		percent := h.pace(base, h.pacedGoal(base, offHeap, math.MaxInt64))
		got, floor, ceiling := h.goal(percent), h.goal(base), with.goal(base)-offHeap
		if percent < base || got < floor || got > max(floor, ceiling) {
			t.Fatalf("%+v, GOGC=%d, %d off-heap: percent %d, by which the goal is %d: want %d to %d", h, base, offHeap, percent, got, floor, ceiling)
		}
		if step := max(h.live+h.roots, minHeap)/100 + 1; percent < math.MaxInt32 && got < ceiling-step {
			t.Fatalf("%+v, GOGC=%d, %d off-heap: percent %d, by which the goal is %d: want %d, or up to %d less", h, base, offHeap, percent, got, ceiling, step)
		}
	}
}
