package tracer_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.opentelemetry.io/otel/trace/noop"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/measure"
	"github.com/alloctrace/alloctrace/tracer"
)

func BenchmarkRegion(b *testing.B) {
	p := alloctrace.Wrap(measure.NewInner())
	b.ReportAllocs()
	for b.Loop() {
		_, r := tracer.Start(context.Background(), "region", p, tracer.WithTracerProvider(noop.NewTracerProvider()))
		r.End()
	}
}

// BenchmarkOperation is a pair of operations outside of regions and in one, by one goroutine and by
// as many as there are processors, all in the same region.
func BenchmarkOperation(b *testing.B) {
	p := alloctrace.Wrap(measure.NewInner())
	_, region := tracer.Start(context.Background(), "region", p)
	page := blockalloc.BlockLayout(4 << 10)
	for _, c := range []struct {
		name string
		mem  *alloctrace.Proxy
	}{{"outside", p}, {"inside", region.Allocator()}} {
		pair := func() {
			block, _ := c.mem.Allocate(page)
			_ = c.mem.Free(block)
		}
		b.Run(c.name+" one goroutine", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				pair()
			}
		})
		b.Run(c.name+" all processors", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					pair()
				}
			})
		})
	}
}

// BenchmarkTable prints what an operation in a region costs, a row a measure: name value unit bound ok|over.
func BenchmarkTable(b *testing.B) {
	for b.Loop() {
		p := alloctrace.Wrap(measure.NewInner())
		ctx, region := tracer.Start(context.Background(), "region", p, tracer.WithTracerProvider(noop.NewTracerProvider()))
		_, nested := tracer.Start(ctx, "region", p, tracer.WithTracerProvider(noop.NewTracerProvider()))
		pairs := measure.Pairs("region", 2000, region.Allocator())
		child := measure.Pairs("child", 2000, p.Child("child").WithContext(ctx))
		times := measure.Run(1001, []measure.Subject{
			measure.Plain(), measure.Atomic(), measure.Pairs("counted", 2000, p), pairs, measure.Pairs("nested", 2000, nested.Allocator()),
			measure.Pairs("child_counted", 2000, p.Child("child")), child,
			measure.Pairs("lifetimes", 2000, withLifetimes(b, 0)), measure.Pairs("lifetimes_all", 500, withLifetimes(b, 1)),
		})
		fmt.Println() // a pair is two operations
		measure.Row(os.Stdout, b, "region_operation_over_counted", times.Over("region", "counted", "plain")/2, "P", 1.5)
		measure.Row(os.Stdout, b, "region_nested_operation_over_region", times.Over("nested", "region", "plain")/2, "P", 1.5)
		measure.Row(os.Stdout, b, "region_child_operation_over_counted", times.Over("child", "child_counted", "plain")/2, "P", 1.5)
		measure.Row(os.Stdout, b, "lifetimes_over_counted", times.Over("lifetimes", "counted", "plain"), "P", 1.3)
		measure.Row(os.Stdout, b, "lifetimes_all_over_counted", times.Over("lifetimes_all", "counted", "plain"), "P", measure.NoBound)
		measure.Row(os.Stdout, b, "region_allocations", testing.AllocsPerRun(1000, func() { pairs.Run(1); child.Run(1) }), "allocs/op", 0)
		region.End()
	}
}

// withLifetimes returns a Proxy whose blocks have spans, sampled at a rate, as far as the default budget goes.
func withLifetimes(b *testing.B, rate int) *alloctrace.Proxy {
	l := tracer.NewLifetimes(tracer.LifetimeOptions{Rate: rate, TracerProvider: noop.NewTracerProvider()})
	b.Cleanup(l.Close)
	return alloctrace.Wrap(measure.NewInner(), alloctrace.WithHooks(l))
}
