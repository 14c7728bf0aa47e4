package tracer_test

import (
	"context"
	"fmt"
	"os"
	"testing"

	"go.opentelemetry.io/otel/trace/noop"

	"github.com/alloctrace/alloctrace"
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

// BenchmarkTable prints what an operation in a region costs, a row a measure: name value unit bound ok|over.
func BenchmarkTable(b *testing.B) {
	for b.Loop() {
		p := alloctrace.Wrap(measure.NewInner())
		_, region := tracer.Start(context.Background(), "region", p, tracer.WithTracerProvider(noop.NewTracerProvider()))
		pairs := measure.Pairs("region_off", 2000, region.Allocator())
		times := measure.Run(1001, []measure.Subject{measure.Atomic(), measure.Pairs("counted", 2000, p), pairs})
		fmt.Println()
		measure.Row(os.Stdout, b, "region_off_over_counted", times.Over("region_off", "counted", "atomic"), "A", measure.NoBound)
		measure.Row(os.Stdout, b, "region_off_allocations", testing.AllocsPerRun(1000, func() { pairs.Run(1) }), "allocs/op", 0)
		region.End()
	}
}
