package heapprofile

import (
	"math"
	"math/bits"
)

// A sampler chooses blocks by their bytes: one in rate bytes on average, each block with
// the probability 1-exp(-size/rate) and by itself. That is what walking through all
// bytes by distances that are exponentially distributed comes to, as
// [runtime.MemProfileRate] does, without a distance to keep.
type sampler struct {
	rate    int64
	likely  [65]uint32  // by the binary logarithm of the size, rounded up, or 1: at least the probability, in units of 1/(1<<32)
	weights [65]float64 // likewise: of the sizes that are powers of two
}

// newSampler returns a sampler with this rate; 1 chooses every block, and 0 none.
func newSampler(rate int64) sampler {
	s := sampler{rate: rate}
	for i := range s.likely {
		probability := s.probability(math.Ldexp(1, i))
		s.likely[i], s.weights[i] = uint32(min(probability*(1<<32), math.MaxUint32)), 1/probability
	}
	return s
}

func (s *sampler) probability(size float64) float64 {
	switch s.rate {
	case 0:
		return 0
	case 1:
		return 1
	}
	return -math.Expm1(-size / float64(s.rate))
}

// A block of size bytes is to be sampled if a number that is drawn for it, from 0 to
// 1<<32-1, is at most s.bound(size), as few are, and s.chosen of both then.
func (s *sampler) bound(size uintptr) uint32 { return s.likely[sizeClass(size)] }

// sizeClass returns the binary logarithm of size, rounded up, or 1.
func sizeClass(size uintptr) int { return bits.Len64(uint64(size-1) | 1) }

func (s *sampler) chosen(drawn uint32, size uintptr) bool {
	return s.rate > 0 && isPowerOfTwo(size) || float64(drawn) < s.probability(float64(size))*(1<<32)
}

// weight returns how many blocks of size bytes one that was chosen stands for.
func (s *sampler) weight(size uintptr) float64 {
	if isPowerOfTwo(size) {
		return s.weights[sizeClass(size)]
	}
	return 1 / s.probability(float64(size))
}

// isPowerOfTwo reports whether size is one that a class ends with.
func isPowerOfTwo(size uintptr) bool { return size > 1 && size&(size-1) == 0 }
