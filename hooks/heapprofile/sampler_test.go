package heapprofile

import (
	"math"
	"testing"

	"github.com/alloctrace/alloctrace/internal/random"
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

// TestSamplerChooses: as many blocks as the probability says, in small and large steps.
func TestSamplerChooses(t *testing.T) {
	s := newSampler(1000)
	for _, size := range []uintptr{1, 100, 1000, 5000} {
		const n = 200_000
		chosen := 0
		for range n {
			if drawn := random.Uint32(); drawn <= s.bound(size) && s.chosen(drawn, size) {
				chosen++
			}
		}
		p := 1 - math.Exp(-float64(size)/1000)
		if got, deviation := float64(chosen)/n, math.Sqrt(p*(1-p)/n); math.Abs(got-p) > 5*deviation {
			t.Errorf("of blocks of %d bytes %.5f are chosen, want %.5f ± %.5f", size, got, p, deviation)
		}
		if w := s.weight(size); math.Abs(w*p-1) > 1e-9 {
			t.Errorf("a block of %d bytes stands for %v, want %v", size, w, 1/p)
		}
	}
}

// TestWeights: a weight that is looked up is the one that is computed.
func TestWeights(t *testing.T) {
	for _, rate := range []int64{1, 2, 4096, 512 << 10, 1 << 40} {
		s := newSampler(rate)
		for size := uintptr(1); size != 0; size <<= 1 {
			for _, size := range []uintptr{size, size + 1} {
				if got, want := s.weight(size), 1/s.probability(float64(size)); got != want {
					t.Errorf("rate %d, size %d: %v, want %v", rate, size, got, want)
				}
			}
		}
	}
}
