package random

import (
	"math"
	"sync"
	"testing"
)

// TestUint32: in numbers drawn by several goroutines each bit is set half of the time, and
// all are different from each other but for a few.
func TestUint32(t *testing.T) {
	const goroutines, each = 4, 100_000
	drawn := make([][]uint32, goroutines)
	var wg sync.WaitGroup
	for g := range drawn {
		wg.Go(func() {
			for range each {
				drawn[g] = append(drawn[g], Uint32())
			}
		})
	}
	wg.Wait()
	const n = goroutines * each
	var ones [32]int
	seen := make(map[uint32]bool)
	for _, numbers := range drawn {
		for _, v := range numbers {
			for bit := range ones {
				ones[bit] += int(v >> bit & 1)
			}
			seen[v] = true
		}
	}
	for bit, got := range ones {
		if deviation := math.Sqrt(n) / 2; math.Abs(float64(got)-n/2) > 6*deviation {
			t.Errorf("bit %d is set %d times of %d", bit, got, n)
		}
	}
	if expected := n * n / 2.0 / (1 << 32); float64(n-len(seen)) > 10*expected {
		t.Errorf("%d of %d numbers came before, want about %.0f", n-len(seen), n, expected)
	}
}
