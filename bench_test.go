package alloctrace_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/hooks/zlog"
	"github.com/alloctrace/alloctrace/internal/measure"
	"github.com/alloctrace/alloctrace/tracer"
)

// nothing is a hook that does nothing.
type nothing struct{ _ int }

func (*nothing) Observe(context.Context, alloctrace.Event) {}

// callers is a hook that does what no hook can do with less that remembers who called.
type callers struct{}

func (callers) Observe(_ context.Context, e alloctrace.Event) {
	if e.Kind == alloctrace.Allocated {
		var pcs [32]uintptr
		runtime.Callers(1, pcs[:])
	}
}

// pairs are the allocators whose Allocate and Free are measured, around an inner
// allocator that costs no more than its call.
func pairs(tb testing.TB) map[string]blockalloc.Allocator {
	inner := newSingle(tb)
	quietLog := zerolog.New(io.Discard)
	_, region := tracer.Start(context.Background(), "region", alloctrace.Wrap(inner), tracer.WithTracerProvider(noop.NewTracerProvider()))
	return map[string]blockalloc.Allocator{
		"bare":       inner,
		"counted":    alloctrace.Wrap(inner),
		"exact":      alloctrace.Wrap(inner, alloctrace.WithCounter(counter.Exact())),
		"child":      alloctrace.Wrap(inner).Child("child"),
		"noop_hook":  alloctrace.Wrap(inner, alloctrace.WithHooks(&nothing{})),
		"meter":      alloctrace.Wrap(inner, alloctrace.WithHooks(hooks.NewMeter(&nothing{}))),
		"writer":     alloctrace.Wrap(inner, alloctrace.WithHooks(hooks.NewWriter(io.Discard))),
		"zlog":       alloctrace.Wrap(inner, alloctrace.WithHooks(zlog.New(quietLog))),
		"zlog_off":   alloctrace.Wrap(inner, alloctrace.WithHooks(zlog.New(quietLog.Level(zerolog.Disabled)))),
		"sample_64":  alloctrace.Wrap(inner, alloctrace.WithHooks(hooks.Sample(64, zlog.New(quietLog)))),
		"region_off": region.Allocator(),
		"ring":       alloctrace.Wrap(inner, alloctrace.WithHooks(hooks.NewRing(256, nil))),
		"ring_large": alloctrace.Wrap(inner, alloctrace.WithHooks(hooks.NewRing(1<<16, nil))), // larger than caches
		"ring_pool":  alloctrace.Wrap(&blockalloc.Pool{}, alloctrace.WithHooks(hooks.NewRing(256, nil))),
		"leaks":      alloctrace.Wrap(inner, alloctrace.WithHooks(hooks.NewLeaks(512<<10))),
		"leaks_all":  alloctrace.Wrap(inner, alloctrace.WithHooks(hooks.NewLeaks(1))),
		"profile":    alloctrace.Wrap(inner, alloctrace.WithHooks(hooks.NewProfile(hooks.DefaultProfileRate))),
		"all_pool":   alloctrace.Wrap(&blockalloc.Pool{}, alloctrace.WithHooks(hooks.NewRing(256, nil), hooks.NewProfile(hooks.DefaultProfileRate))),
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
	for _, name := range []string{"bare", "counted", "noop_hook", "zlog"} {
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
	p := alloctrace.Wrap(newSingle(b))
	b.ReportAllocs()
	for b.Loop() {
		_ = p.Stats()
	}
}

func BenchmarkRegion(b *testing.B) {
	p := alloctrace.Wrap(newSingle(b))
	b.ReportAllocs()
	for b.Loop() {
		_, r := tracer.Start(context.Background(), "region", p, tracer.WithTracerProvider(noop.NewTracerProvider()))
		r.End()
	}
}

// BenchmarkTable prints what the README claims, a row a measure:
//
//	name value unit bound ok|over
//
// The unit A is one uncontended atomic addition, called. All subjects are timed in turns
// of a fraction of a millisecond, and a value is the median of the ratios within a
// turn, so that it means something on a machine that is busy or changes its
// speed. A dash means no bound.
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
	logger := zerolog.New(io.Discard)
	hook := zlog.New(logger)
	event := alloctrace.Event{Kind: alloctrace.Allocated, Addr: 0x7f400000, Size: 4096, Align: 4096}
	ctx := context.Background()
	subjects := []measure.Subject{
		measure.Atomic(),
		{Name: "zerolog_event", Turn: tableTurn / 10, Run: func(n int) {
			for range n {
				var addr [8]byte
				binary.BigEndian.PutUint64(addr[:], uint64(event.Addr))
				logger.Debug().Hex("addr", addr[:]).Uint64("size", uint64(event.Size)).Uint64("align", uint64(event.Align)).Msg(event.Kind.String())
			}
		}},
		{Name: "zlog_event", Turn: tableTurn / 10, Run: func(n int) {
			for range n {
				hook.Observe(ctx, event)
			}
		}},
	}
	all := pairs(b)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		turn := tableTurn
		switch name {
		case "writer", "zlog", "leaks_all", "callers":
			turn /= 10
		case "leaks", "profile", "all_pool":
			turn *= 10 // of which one in 128 is remembered
		}
		a := all[name]
		subjects = append(subjects, measure.Subject{Name: name, Turn: turn, Run: func(n int) {
			for range n {
				pair(a)
			}
		}})
	}
	shared := alloctrace.Wrap(newSingle(b)) // which has spread, once two goroutines have met in it
	on := func(goroutines int) func(n int) {
		return func(n int) {
			var wg sync.WaitGroup
			for range goroutines {
				wg.Go(func() {
					for range n / goroutines {
						pair(shared)
					}
				})
			}
			wg.Wait()
		}
	}
	on(2)(1_000_000)
	var words [2]struct { // of which no two goroutines write one: as well as two can scale here
		atomic.Int64
		_ [120]byte
	}
	subjects = append(subjects,
		measure.Subject{Name: "shared_1", Turn: 10 * tableTurn, Run: on(1)},
		measure.Subject{Name: "shared_2", Turn: 10 * tableTurn, Run: on(2)},
		measure.Subject{Name: "words_2", Turn: 10 * tableTurn, Run: func(n int) {
			var wg sync.WaitGroup
			for g := range words {
				wg.Go(func() {
					for range n / len(words) {
						measure.AddOne(&words[g].Int64)
					}
				})
			}
			wg.Wait()
		}},
	)

	times := measure.Run(tableRounds, subjects)
	row := func(name string, value float64, unit string, bound float64) {
		measure.Row(os.Stdout, b, name, value, unit, bound)
	}
	fmt.Println()
	row("atomic_add", times.Median("atomic"), "ns", measure.NoBound)
	row("bare_pair", times.Ratio("bare", "atomic"), "A", measure.NoBound)
	row("counted_pair_over_bare", times.Over("counted", "bare"), "A", 2.4)
	row("child_pair_over_bare", times.Over("child", "bare"), "A", 2.4)
	row("exact_pair_over_bare", times.Over("exact", "bare"), "A", 4.5)
	row("atomic_adds_apart_2_over_1", times.Ratio("words_2", "atomic"), "x", measure.NoBound)
	row("shared_counter_1_over_bare", times.Over("shared_1", "bare"), "A", measure.NoBound)
	row("shared_counter_2_over_1", times.Ratio("shared_2", "shared_1"), "x", 1/1.7)
	row("noop_hook_over_counted", times.Over("noop_hook", "counted"), "A", 1)
	row("meter_over_counted", times.Over("meter", "counted"), "A", 2.5)
	row("ring_event_over_counted", times.Over("ring", "counted")/2, "A", 1.5)
	row("ring_large_event_over_counted", times.Over("ring_large", "counted")/2, "A", measure.NoBound)
	row("pool_counted_ring_pair", times.Ratio("ring_pool", "atomic"), "A", 9)
	row("zlog_event_over_zerolog", times.Ratio("zlog_event", "zerolog_event"), "x", 1.10)
	row("zlog_off_over_counted", times.Over("zlog_off", "counted"), "A", measure.NoBound)
	row("zlog_over_counted", times.Over("zlog", "counted"), "A", measure.NoBound)
	row("sample_64_over_counted", times.Over("sample_64", "counted"), "A", measure.NoBound)
	row("writer_over_counted", times.Over("writer", "counted"), "A", measure.NoBound)
	row("leaks_over_counted", times.Over("leaks", "counted"), "A", 1.5)
	row("profile_over_counted", times.Over("profile", "counted"), "A", 1.5)
	row("pool_counted_ring_profile_pair", times.Ratio("all_pool", "atomic"), "A", 10)
	row("callers_over_counted", times.Over("callers", "counted"), "A", measure.NoBound)
	row("leaks_all_over_callers", times.Over("leaks_all", "counted")/times.Over("callers", "counted"), "x", 1.3)
	row("region_off_over_counted", times.Over("region_off", "counted"), "A", measure.NoBound)
	row("pool_pair", times.Ratio("pool", "atomic"), "A", 4.5)
	row("pool_counted_pair", times.Ratio("pool_count", "atomic"), "A", 6.5)
	for _, name := range []string{"counted", "writer", "zlog", "region_off"} {
		row(name+"_allocations", testing.AllocsPerRun(1000, func() { pair(all[name]) }), "allocs/op", 0)
	}
}
