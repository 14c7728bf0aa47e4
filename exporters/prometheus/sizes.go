package prometheus

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/alloctrace/alloctrace/counter"
)

// The classic histogram has the classes from 16 B to 16 GiB, always all of them: a bucket
// that shows up when it is first needed would hide from rate() what it came with.
const lowest, highest = 4, 34

// bounds are the upper bounds of the classes, in bytes.
var bounds = func() (b [counter.NumClasses]float64) {
	for i := range b {
		b[i] = float64(uint64(1) << i)
	}
	return b
}()

// sizes is a histogram that is native and classic in one, which client_golang's constant
// ones are not.
type sizes struct {
	desc      *prometheus.Desc
	labels    []*dto.LabelPair
	histogram *dto.Histogram
}

// newSizes returns the sizes that s has counted. Class i is bucket i of schema 0: more than
// 1<<(i-1) and at most 1<<i bytes.
func newSizes(desc *prometheus.Desc, s *counter.Stats, path string) (prometheus.Metric, error) {
	var count uint64
	native := make(map[int]int64)
	classic := make([]*dto.Bucket, highest-lowest+1)
	buckets, counts := make([]dto.Bucket, len(classic)), make([]uint64, len(classic)) // all in two allocations
	for i, class := range s.Classes {
		if class.Allocated < 0 { // no snapshot but some difference: Prometheus would refuse the scrape
			return nil, fmt.Errorf("%d blocks of class %d", class.Allocated, i)
		}
		if class.Allocated != 0 {
			native[i] = class.Allocated
			count += uint64(class.Allocated)
		}
		if i >= lowest && i <= highest {
			n := i - lowest
			counts[n], classic[n] = count, &buckets[n]
			classic[n].CumulativeCount, classic[n].UpperBound = &counts[n], &bounds[i]
		}
	}
	var m dto.Metric
	n, err := prometheus.NewConstNativeHistogram(desc, count, float64(s.AllocatedBytes), native, nil, 0, 0, 0, time.Time{}, path)
	if err == nil {
		err = n.Write(&m)
	}
	if err != nil {
		return nil, err
	}
	m.Histogram.Bucket = classic
	m.Histogram.CreatedTimestamp = nil // nobody knows it
	return &sizes{desc, m.Label, m.Histogram}, nil
}

// Desc implements [prometheus.Metric].
func (s *sizes) Desc() *prometheus.Desc { return s.desc }

// Write implements [prometheus.Metric].
func (s *sizes) Write(m *dto.Metric) error {
	m.Label, m.Histogram = s.labels, s.histogram
	return nil
}
