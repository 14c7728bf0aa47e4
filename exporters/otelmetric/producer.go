package otelmetric

import (
	"context"
	"slices"
	"sync"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/sdk/instrumentation"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/metrics"
)

// A Producer makes the histogram allocator.allocation.size of the sources that were registered
// with it. Pass it to a reader by the SDK's WithProducer, and to [Register] by [WithProducer].
// The zero Producer is ready to use. It must not be copied, and may be used by several
// goroutines at once. The histogram is cumulative, whatever temporality the reader wants.
//
// Counts are exact, because size classes are powers of two and include their upper bounds, as
// OpenTelemetry's buckets do. The sum is of granted bytes.
type Producer struct {
	// Explicit makes a histogram with explicit bounds, the powers of two from 16 bytes to
	// 64 GiB, for collectors and stores that take no exponential histogram. Without it the
	// histogram is an exponential one of scale 0, which has a bucket for each power of two.
	Explicit bool

	mu   sync.Mutex
	regs []*Registration
}

var _ sdkmetric.Producer = (*Producer)(nil)

func (p *Producer) add(r *Registration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.regs = append(p.regs, r)
}

func (p *Producer) remove(r *Registration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.regs = slices.DeleteFunc(p.regs, func(other *Registration) bool { return other == r })
}

// Produce implements the SDK's [sdkmetric.Producer]. It takes a snapshot of each source.
func (p *Producer) Produce(context.Context) ([]metricdata.ScopeMetrics, error) {
	list := p.sizes()
	if len(list) == 0 {
		return nil, nil
	}
	m := metricdata.Metrics{Name: metrics.AllocationSize.Name, Unit: metrics.AllocationSize.Unit, Description: metrics.AllocationSize.Help}
	if p.Explicit {
		m.Data = explicit(list, time.Now())
	} else {
		m.Data = exponential(list, time.Now())
	}
	scope := instrumentation.Scope{Name: ScopeName, Version: Version()}
	return []metricdata.ScopeMetrics{{Scope: scope, Metrics: []metricdata.Metrics{m}}}, nil
}

// sizes are those of the blocks of all registrations that have the attributes of one.
type sizes struct {
	*Registration
	classes [counter.NumClasses]uint64
	count   uint64
	sum     int64
}

func (p *Producer) sizes() []*sizes {
	p.mu.Lock()
	defer p.mu.Unlock()
	var list []*sizes
	found := make(map[attribute.Distinct]*sizes)
	for _, r := range p.regs {
		var s counter.Stats
		if !r.try(func() error { s = r.source.Stats(); return nil }) {
			continue
		}
		z := found[r.attributes.Equivalent()]
		if z == nil {
			z = &sizes{Registration: r}
			found[r.attributes.Equivalent()] = z
			list = append(list, z)
		}
		z.sum += s.AllocatedBytes
		for i, class := range s.Classes {
			z.classes[i] += uint64(class.Allocated)
			z.count += uint64(class.Allocated)
		}
	}
	return list
}

// exponential makes of class i, with more than 1<<(i-1) and at most 1<<i bytes, the
// bucket of index i-1.
func exponential(list []*sizes, now time.Time) metricdata.ExponentialHistogram[int64] {
	h := metricdata.ExponentialHistogram[int64]{Temporality: metricdata.CumulativeTemporality}
	for _, z := range list {
		h.DataPoints = append(h.DataPoints, metricdata.ExponentialHistogramDataPoint[int64]{
			Attributes: z.attributes, StartTime: z.start, Time: now, Count: z.count, Sum: z.sum,
			PositiveBucket: metricdata.ExponentialBucket{Offset: -1, Counts: z.classes[:]},
		})
	}
	return h
}

// The classes of the least and the greatest explicit bound.
const least, greatest = 4, 36

// explicit makes a bucket of each class from least to greatest, of which the first
// has the smaller classes too, and one of the larger ones.
func explicit(list []*sizes, now time.Time) metricdata.Histogram[int64] {
	h := metricdata.Histogram[int64]{Temporality: metricdata.CumulativeTemporality}
	var bounds []float64
	for i := least; i <= greatest; i++ {
		bounds = append(bounds, float64(uint64(1)<<i))
	}
	for _, z := range list {
		counts := make([]uint64, len(bounds)+1)
		for i, n := range z.classes {
			counts[min(max(i, least), greatest+1)-least] += n
		}
		h.DataPoints = append(h.DataPoints, metricdata.HistogramDataPoint[int64]{
			Attributes: z.attributes, StartTime: z.start, Time: now, Count: z.count, Sum: z.sum,
			Bounds: bounds, BucketCounts: counts,
		})
	}
	return h
}
