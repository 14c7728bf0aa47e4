package random

import (
	"math"
	"sync"
	"testing"
)

// TestUint32: in numbers drawn by several goroutines each bit is set half of the time, as closely
// in each of many runs of numbers as chance has it, and all numbers are different but for a few.
func TestUint32(t *testing.T) {
	const (
		goroutines, runs, length = 4, 16, 1 << 16
		kept                     = 100_000 // of each goroutine
	)
	var (
		drawn  [goroutines][kept]uint32
		square [goroutines][32]float64 // for each bit, of the deviations, of which chance makes runs*length/4
		wg     sync.WaitGroup
	)
	for g := range goroutines {
		wg.Go(func() {
			for run := range runs {
				var ones [32]int
				for i := range length {
					v := Uint32()
					for bit := range ones {
						ones[bit] += int(v >> bit & 1)
					}
					if n := run*length + i; n < kept {
						drawn[g][n] = v
					}
				}
				for bit, n := range ones {
					square[g][bit] += math.Pow(float64(n)-length/2, 2)
				}
			}
		})
	}
	wg.Wait()
	for bit := range 32 {
		sum := 0.0
		for g := range goroutines {
			sum += square[g][bit]
		}
		const of = goroutines * runs
		if sigmas := (sum/(length/4) - of) / math.Sqrt(2*of); math.Abs(sigmas) > 8 {
			t.Errorf("bit %d: what %d runs of %d numbers deviate from a half is %.1f standard deviations from what chance makes", bit, of, length, sigmas)
		}
	}
	seen := make(map[uint32]bool)
	for g := range drawn {
		for _, v := range drawn[g] {
			seen[v] = true
		}
	}
	const n = goroutines * kept
	if expected := n * n / 2.0 / (1 << 32); float64(n-len(seen)) > 10*expected {
		t.Errorf("%d of %d numbers came before, want about %.0f", n-len(seen), n, expected)
	}
}
