//go:build cgo && unix

package peers

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"

	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/puzpuzpuz/xsync/v4"
	"go.opentelemetry.io/otel/metric"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/hooks/ring"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// counters are ways to know how many bytes were allocated and how many are live:
// each counts a pair of allocating and freeing 4 KiB. All goroutines count in one.
var counters = []contender{
	counts("counter", func(testing.TB) (func(uintptr), func(uintptr)) {
		c := new(counter.Counter)
		return func(size uintptr) { c.Allocate(size, size) }, func(size uintptr) { c.Free(size, size) }
	}),
	counts("counter_exact", func(testing.TB) (func(uintptr), func(uintptr)) {
		c := counter.Exact()
		return func(size uintptr) { c.Allocate(size, size) }, func(size uintptr) { c.Free(size, size) }
	}),
	counts("atomics", func(testing.TB) (func(uintptr), func(uintptr)) {
		var allocations, bytes, frees, live, peak atomic.Int64
		return func(size uintptr) {
				allocations.Add(1)
				bytes.Add(int64(size))
				for now := live.Add(int64(size)); ; {
					if most := peak.Load(); now <= most || peak.CompareAndSwap(most, now) {
						return
					}
				}
			}, func(size uintptr) {
				frees.Add(1)
				live.Add(-int64(size))
			}
	}),
	counts("xsync", func(testing.TB) (func(uintptr), func(uintptr)) {
		allocated, freed := xsync.NewCounter(), xsync.NewCounter()
		return func(size uintptr) { allocated.Add(int64(size)) }, func(size uintptr) { freed.Add(int64(size)) }
	}),
	counts("prometheus", func(testing.TB) (func(uintptr), func(uintptr)) {
		allocated := prometheus.NewCounter(prometheus.CounterOpts{Name: "allocated_bytes_total"})
		freed := prometheus.NewCounter(prometheus.CounterOpts{Name: "freed_bytes_total"})
		return func(size uintptr) { allocated.Add(float64(size)) }, func(size uintptr) { freed.Add(float64(size)) }
	}),
	counts("otel", func(tb testing.TB) (func(uintptr), func(uintptr)) {
		meter := sdkmetric.NewMeterProvider(sdkmetric.WithReader(sdkmetric.NewManualReader())).Meter("peers")
		instrument := func(name string) metric.Int64Counter {
			c, err := meter.Int64Counter(name)
			if err != nil {
				tb.Fatal(err)
			}
			return c
		}
		allocated, freed, ctx := instrument("allocated"), instrument("freed"), context.Background()
		return func(size uintptr) { allocated.Add(ctx, int64(size)) }, func(size uintptr) { freed.Add(ctx, int64(size)) }
	}),
}

func counts(name string, newCounter func(testing.TB) (allocate, free func(uintptr))) contender {
	return contender{name, false, func(tb testing.TB, size uintptr) func(int) {
		allocate, free := newCounter(tb)
		return func(n int) {
			for range n {
				allocate(size)
				free(size)
			}
		}
	}}
}

// observed are allocators that count what goes through them.
var observed = []contender{
	allocator("pool_counted", false, func(testing.TB, uintptr) blockalloc.Allocator { return alloctrace.Wrap(&blockalloc.Pool{}) }),
	allocator("pool_everything", false, func(testing.TB, uintptr) blockalloc.Allocator { return everything(&blockalloc.Pool{}) }),
	arrowed("arrow_go", func() memory.Allocator { return memory.NewGoAllocator() }),
	arrowed("arrow_checked", func() memory.Allocator { return memory.NewCheckedAllocator(memory.NewGoAllocator()) }),
}

// everything observes inner with all that is there to be left on in production.
func everything(inner blockalloc.Allocator) blockalloc.Allocator {
	return alloctrace.Wrap(inner, alloctrace.WithHooks(ring.New(256, nil)))
}

func arrowed(name string, newAllocator func() memory.Allocator) contender {
	return contender{name, false, func(_ testing.TB, size uintptr) func(int) {
		mem := newAllocator()
		return func(n int) {
			for range n {
				mem.Free(mem.Allocate(int(size)))
			}
		}
	}}
}

// BenchmarkCounters prints what a pair costs that is counted, a row a measure: name
// value unit bound ok|over. On two goroutines it is the time for all pairs by
// their number.
func BenchmarkCounters(b *testing.B) {
	for b.Loop() {
		compare(b, append(append([]contender{}, counters...), observed...))
	}
}

func compare(b *testing.B, contenders []contender) {
	const size = 4 << 10
	subjects := []measure.Subject{measure.Atomic()}
	for _, c := range contenders {
		for _, goroutines := range []int{1, 2} {
			subjects = append(subjects, c.subject(b, fmt.Sprintf("%s_%d", c.name, goroutines), size, goroutines))
		}
	}
	times := measure.Run(201, subjects)
	fmt.Println()
	measure.Row(os.Stdout, b, "atomic_add", times.Median("atomic"), "ns", measure.NoBound)
	for _, c := range contenders {
		one, two := c.name+"_1", c.name+"_2"
		measure.Row(os.Stdout, b, one, times.Ratio(one, "atomic"), "A", measure.NoBound)
		measure.Row(os.Stdout, b, two, times.Ratio(two, "atomic"), "A", measure.NoBound)
	}
}
