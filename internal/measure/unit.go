package measure

import (
	"slices"
	"sync/atomic"
	"testing"
	"time"
)

// ReportUnit reports what an operation of b took in A: one uncontended atomic addition,
// called, as measured just now.
func ReportUnit(b *testing.B) {
	var word atomic.Int64
	var units []float64 // ns
	for range 21 {
		start := time.Now()
		for range 5000 {
			AddOne(&word)
		}
		units = append(units, float64(time.Since(start))/5000)
	}
	slices.Sort(units)
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/units[len(units)/2], "A/op")
}
