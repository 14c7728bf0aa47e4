package alloctrace_test

import (
	"context"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/backstop"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/hooks/ring"
	"github.com/alloctrace/alloctrace/internal/measure"
)

// nothing is a hook that does nothing.
type nothing struct{ _ int }

func (*nothing) Observe(context.Context, alloctrace.Event, error) {}

// callers is a hook that does what no hook can do with less that remembers who called.
type callers struct{}

func (callers) Observe(_ context.Context, e alloctrace.Event, _ error) {
	if e.Kind == alloctrace.Allocated {
		var pcs [32]uintptr
		runtime.Callers(1, pcs[:])
	}
}

// pairs are the allocators whose Allocate and Free are measured, around an inner
// allocator that costs no more than its call.
func pairs(tb testing.TB) map[string]blockalloc.Allocator {
	inner := measure.NewInner()
	return map[string]blockalloc.Allocator{
		"bare":       inner,
		"counted":    alloctrace.Wrap(inner),
		"exact":      alloctrace.Wrap(inner, alloctrace.WithCounter(counter.Exact())),
		"child":      alloctrace.Wrap(inner).Child("child"),
		"noop_hook":  alloctrace.Wrap(inner, alloctrace.WithHooks(&nothing{})),
		"meter":      alloctrace.Wrap(inner, alloctrace.WithHooks(hooks.NewMeter(&nothing{}))),
		"writer":     alloctrace.Wrap(inner, alloctrace.WithHooks(hooks.NewWriter(io.Discard))),
		"ring":       alloctrace.Wrap(inner, alloctrace.WithHooks(ring.New(256, nil))),
		"ring_large": alloctrace.Wrap(inner, alloctrace.WithHooks(ring.New(1<<16, nil))), // larger than caches
		"ring_pool":  alloctrace.Wrap(&blockalloc.Pool{}, alloctrace.WithHooks(ring.New(256, nil))),
		"heap":       alloctrace.Wrap(inner, alloctrace.WithHooks(heapprofile.New(heapprofile.Options{}))),
		"heap_all":   alloctrace.Wrap(inner, alloctrace.WithHooks(heapprofile.New(heapprofile.Options{Rate: 1}))),
		"all_pool":   alloctrace.Wrap(&blockalloc.Pool{}, alloctrace.WithHooks(ring.New(256, nil), heapprofile.New(heapprofile.Options{}))),
		"callers":    alloctrace.Wrap(inner, alloctrace.WithHooks(callers{})),
		"pool":       &blockalloc.Pool{},
		"pool_count": alloctrace.Wrap(&blockalloc.Pool{}),
	}
}

func pair(a blockalloc.Allocator) {
	b, _ := a.Allocate(page)
	_ = a.Free(b)
}

// BenchmarkAdd measures the unit A, and the addition alone.
func BenchmarkAdd(b *testing.B) {
	var word atomic.Int64
	b.Run("called", func(b *testing.B) {
		for b.Loop() {
			measure.AddOne(&word)
		}
	})
	b.Run("inlined", func(b *testing.B) {
		for b.Loop() {
			word.Add(1)
		}
	})
}

// BenchmarkPair measures one Allocate and Free of 4 KiB.
func BenchmarkPair(b *testing.B) {
	all := pairs(b)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		a := all[name]
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				pair(a)
			}
		})
	}
}

// BenchmarkPairParallel measures the same on all processors at once, through one
// Proxy.
func BenchmarkPairParallel(b *testing.B) {
	all := pairs(b)
	for _, name := range []string{"bare", "counted", "noop_hook"} {
		a := all[name]
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					pair(a)
				}
			})
		})
	}
}

func BenchmarkStats(b *testing.B) {
	p := alloctrace.Wrap(measure.NewInner())
	b.ReportAllocs()
	for b.Loop() {
		_ = p.Stats()
	}
}

// BenchmarkTable prints what the README claims, a row a measure:
//
//	name value unit bound ok|over
//
// The unit A is one uncontended atomic addition, called; P and M are the yardsticks
// [measure.Plain] and [measure.Mixed], which are made of the same kinds of instructions
// as what is held against them. All subjects are timed in turns of a fraction of a
// millisecond, and a value is the median of the ratios within a turn, so that it means
// something on a machine that is busy or changes its speed. A dash means no bound.
func BenchmarkTable(b *testing.B) {
	for b.Loop() {
		table(b)
	}
}

const (
	tableRounds = 1001
	tableTurn   = 2000 // operations, fewer for slow subjects
)

func table(b *testing.B) {
	subjects := []measure.Subject{measure.Atomic(), measure.Plain(), measure.Mixed()}
	all, again, third := pairs(b), pairs(b), pairs(b)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		turn := tableTurn
		switch name {
		case "writer", "heap_all", "callers":
			turn /= 10
		case "heap", "all_pool":
			turn *= 10 // of which one in 128 is remembered
		}
		subjects = append(subjects, measure.Pairs(name, turn, all[name], again[name], third[name]))
	}
	// Two goroutines on one Proxy, and on a Proxy each, which is as well as these instructions scale on this machine.
	shared := alloctrace.Wrap(measure.NewInner())
	each := []*alloctrace.Proxy{alloctrace.Wrap(measure.NewInner()), alloctrace.Wrap(measure.NewInner())}
	on := func(proxies ...*alloctrace.Proxy) func(n int) {
		return func(n int) {
			var wg sync.WaitGroup
			for _, p := range proxies {
				wg.Go(func() {
					for range n / len(proxies) {
						pair(p)
					}
				})
			}
			wg.Wait()
		}
	}
	for _, proxies := range [][]*alloctrace.Proxy{{shared, shared}, {each[0], each[0]}, {each[1], each[1]}} {
		on(proxies...)(1_000_000) // spreads its counts, once two goroutines have met in it
	}
	subjects = append(subjects,
		measure.Subject{Name: "shared_1", Turn: 10 * tableTurn, Run: on(shared)},
		measure.Subject{Name: "shared_2", Turn: 10 * tableTurn, Run: on(shared, shared)},
		measure.Subject{Name: "each_2", Turn: 10 * tableTurn, Run: on(each...)},
	)

	for name, o := range map[string]backstop.Options{"backstop": {}, "backstop_no_stacks": {NoStacks: true}} {
		mem := backstop.New(alloctrace.Wrap(measure.NewInner()), o)
		subjects = append(subjects, measure.Subject{Name: name, Turn: tableTurn / 10, Run: func(n int) {
			for range n {
				handle, _ := mem.Allocate(page)
				_ = mem.Free(handle)
			}
		}})
	}

	times := measure.Run(tableRounds, subjects)
	row := func(name string, value float64, unit string, bound float64) {
		measure.Row(os.Stdout, b, name, value, unit, bound)
	}
	over := func(name, base, yardstick string, bound float64) {
		row(name+"_over_"+base, times.Over(name, base, "atomic"), "A", measure.NoBound)
		row(name+"_over_"+base, times.Over(name, base, yardstick), units[yardstick], bound)
	}
	fmt.Println()
	row("atomic_add", times.Median("atomic"), "ns", measure.NoBound)
	row("plain", times.Median("plain"), "ns", measure.NoBound)
	row("mixed", times.Median("mixed"), "ns", measure.NoBound)
	row("bare_pair", times.Ratio("bare", "atomic"), "A", measure.NoBound)
	over("counted", "bare", "plain", 2.4)
	over("child", "bare", "plain", 2.4)
	over("exact", "bare", "mixed", 3.2)
	row("shared_counter_2_over_1", times.Ratio("shared_2", "shared_1"), "x", measure.NoBound)
	row("shared_counter_2_over_each_2", times.Ratio("shared_2", "each_2"), "x", 1.2)
	over("noop_hook", "counted", "plain", 1.3)
	over("meter", "counted", "plain", 2.4)
	over("ring", "counted", "plain", 2.4)
	over("ring_large", "counted", "plain", measure.NoBound)
	over("writer", "counted", "plain", measure.NoBound)
	over("heap", "counted", "plain", 1.7)
	over("callers", "counted", "plain", measure.NoBound)
	row("heap_all_over_counted", times.Over("heap_all", "counted", "atomic"), "A", measure.NoBound)
	row("heap_all_over_callers", times.Over("heap_all", "counted", "atomic")/times.Over("callers", "counted", "atomic"), "x", 1.3)
	row("pool_pair", times.Ratio("pool", "atomic"), "A", measure.NoBound)
	row("pool_pair", times.Ratio("pool", "mixed"), "M", 2.4)
	over("pool_count", "pool", "plain", 2.2)
	over("ring_pool", "pool", "plain", 4.8)
	over("all_pool", "pool", "plain", 6.5)
	row("all_pool_pair", times.Ratio("all_pool", "atomic"), "A", measure.NoBound)
	row("backstop_over_counted", times.Over("backstop", "counted", "atomic"), "A", measure.NoBound)
	row("backstop_no_stacks_over_counted", times.Over("backstop_no_stacks", "counted", "atomic"), "A", measure.NoBound)
	zeroedRows(b)
	for _, name := range []string{"counted", "writer"} {
		row(name+"_allocations", testing.AllocsPerRun(1000, func() { pair(all[name]) }), "allocs/op", 0)
	}
}

var units = map[string]string{"atomic": "A", "plain": "P", "mixed": "M"}
