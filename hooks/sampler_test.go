package hooks

import (
	"math"
	"testing"
)

// TestSampler: for every size, of all numbers that can be drawn so many choose a block as
// its probability says, and none of them is beyond the bound.
func TestSampler(t *testing.T) {
	for _, rate := range []int64{1, 2, 100, 512 << 10, 1 << 40} {
		s := newSampler(rate)
		for _, size := range []uintptr{1, 2, 3, 4, 5, 8, 96, 100, 4096, 4097, 1<<20 - 1, 1 << 20, 1<<31 - 1} {
			chosen := func(drawn uint64) bool {
				return uint32(drawn) <= s.bound(size) && s.chosen(uint32(drawn), size)
			}
			low, high := uint64(0), uint64(1<<32) // the first number that does not choose it
			for low < high {
				if middle := (low + high) / 2; chosen(middle) {
					low = middle + 1
				} else {
					high = middle
				}
			}
			if want := s.probability(float64(size)) * (1 << 32); math.Abs(float64(low)-want) > 1 {
				t.Errorf("rate %d, size %d: %d numbers choose it, want %.1f", rate, size, low, want)
			}
		}
	}
}
