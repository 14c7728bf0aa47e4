package prometheus_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/alloctrace/alloctrace/counter"
	allocprom "github.com/alloctrace/alloctrace/exporters/prometheus"
)

// Both histograms have each block in the bucket of its size, at the edges too.
func TestSizes(t *testing.T) {
	var c counter.Counter
	counts := map[uintptr]uint64{1: 1, 2: 2, 3: 3, 15: 4, 16: 5, 17: 6, 32: 7, 33: 8, 4096: 9, 4097: 10, 1 << 20: 11, 1<<20 + 1: 12, 1 << 30: 13}
	if large := uint64(1) << 34; uint64(uintptr(large)) == large {
		counts[uintptr(large)], counts[uintptr(large+1)], counts[uintptr(large<<6)] = 14, 15, 16
	}
	var count uint64
	var sum float64
	for size, n := range counts {
		for range n {
			c.Allocate(size, size)
		}
		count += n
		sum += float64(n) * float64(size)
	}
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(allocprom.NewCollector(&c, "index", allocprom.Options{}))
	h := families(t, r)["allocator_allocation_size_bytes"].Metric[0].Histogram
	if h.GetSampleCount() != count || h.GetSampleSum() != sum {
		t.Errorf("%d blocks of %v bytes, want %d of %v", h.GetSampleCount(), h.GetSampleSum(), count, sum)
	}
	if h.CreatedTimestamp != nil {
		t.Errorf("created at %v, which nobody knows", h.CreatedTimestamp)
	}

	// atMost is how many blocks have at most size bytes.
	atMost := func(size float64) (n uint64) {
		for s, m := range counts {
			if float64(s) <= size {
				n += m
			}
		}
		return n
	}
	if n := len(h.Bucket); n != 31 {
		t.Errorf("%d classic buckets, want 31", n)
	}
	for i, b := range h.Bucket {
		bound := float64(uint64(1) << (i + 4))
		if b.GetUpperBound() != bound || b.GetCumulativeCount() != atMost(bound) {
			t.Errorf("classic: %d blocks of at most %v bytes, want %d of %v", b.GetCumulativeCount(), b.GetUpperBound(), atMost(bound), bound)
		}
	}

	if h.GetSchema() != 0 || h.GetZeroCount() != 0 {
		t.Errorf("native: schema %d and %d blocks of size zero, want neither", h.GetSchema(), h.GetZeroCount())
	}
	var index, delta int32
	var here int64
	var seen uint64
	for _, span := range h.PositiveSpan {
		index += span.GetOffset()
		for range span.GetLength() {
			here += h.PositiveDelta[delta]
			seen += uint64(here)
			if bound := float64(uint64(1) << index); seen != atMost(bound) {
				t.Errorf("native: %d blocks of at most %v bytes, want %d", seen, bound, atMost(bound))
			}
			index, delta = index+1, delta+1
		}
	}
	if seen != count {
		t.Errorf("native: %d blocks in all, want %d", seen, count)
	}
}

// A native histogram of nothing is one all the same, and not a classic one.
func TestNoSizes(t *testing.T) {
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(allocprom.NewCollector(new(counter.Counter), "index", allocprom.Options{}))
	h := families(t, r)["allocator_allocation_size_bytes"].Metric[0].Histogram
	if h.GetSampleCount() != 0 || len(h.PositiveSpan) != 1 || len(h.Bucket) != 31 {
		t.Errorf("the histogram of nothing is %v", h)
	}
}
