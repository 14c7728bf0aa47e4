package otlp_test

import (
	"context"
	"fmt"
	"os"
	"runtime"
	"testing"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/internal/measure"
	"github.com/alloctrace/alloctrace/tracer"
)

// discard is a span processor that drops spans.
type discard struct{}

func (discard) OnStart(context.Context, sdktrace.ReadWriteSpan) {}
func (discard) OnEnd(sdktrace.ReadOnlySpan)                     {}
func (discard) Shutdown(context.Context) error                  { return nil }
func (discard) ForceFlush(context.Context) error                { return nil }

// BenchmarkTable prints what a region costs beside a span with the same attributes alone, a row a
// measure: name value unit bound ok|over.
func BenchmarkTable(b *testing.B) {
	before := otel.GetTracerProvider()
	defer otel.SetTracerProvider(before)
	// A heap of 64 MiB, as a service has: with that of a test, a collection is always under way.
	defer runtime.KeepAlive(make([]byte, 64<<20))
	for b.Loop() {
		fmt.Println()
		for name, sampler := range map[string]sdktrace.Sampler{"recorded": sdktrace.AlwaysSample(), "unsampled": sdktrace.NeverSample()} {
			provider := sdktrace.NewTracerProvider(sdktrace.WithSampler(sampler), sdktrace.WithSpanProcessor(discard{}))
			otel.SetTracerProvider(provider)
			mem := alloctrace.Wrap(measure.NewInner(), alloctrace.WithName("mem"))
			spans := provider.Tracer("bench")
			ctx := context.Background()
			alone := func() {
				_, span := spans.Start(ctx, "work")
				if span.IsRecording() {
					setAttributes(span)
				}
				span.End()
			}
			region := func() {
				_, region := tracer.Start(ctx, "work", mem)
				region.End()
			}
			times := measure.Run(1001, []measure.Subject{repeated("alone", alone), repeated("region", region)})
			if name == "recorded" {
				measure.Row(os.Stdout, b, "region_recorded_time", times.Ratio("region", "alone"), "x span", 1.5)
			} else {
				measure.Row(os.Stdout, b, "region_unsampled_time", times.Median("region")-times.Median("alone"), "ns", 100)
			}
			most := map[string]float64{"recorded": 6, "unsampled": 2}[name]
			allocations, bytes := perRun(region)
			allocationsAlone, bytesAlone := perRun(alone)
			measure.Row(os.Stdout, b, "region_"+name+"_allocations", allocations-allocationsAlone, "more", most)
			measure.Row(os.Stdout, b, "region_"+name+"_bytes", bytes-bytesAlone, "B more", 600)
		}
	}
}

func setAttributes(span trace.Span) {
	span.SetAttributes(
		attribute.String("allocator.name", "mem"),
		attribute.Int64("allocator.memory.allocated", 0),
		attribute.Int64("allocator.memory.freed", 0),
		attribute.Int64("allocator.memory.net", 0),
		attribute.Int64("allocator.memory.peak", 0),
		attribute.Int64("allocator.allocations", 0),
		attribute.Int64("allocator.reallocations", 0),
		attribute.Int64("allocator.frees", 0),
		attribute.Int64("allocator.failures", 0),
	)
}

func repeated(name string, f func()) measure.Subject {
	return measure.Subject{Name: name, Run: func(n int) {
		for range n {
			f()
		}
	}}
}

// perRun returns how many allocations on the Go heap f makes, and of how many bytes.
func perRun(f func()) (allocations, bytes float64) {
	const runs = 10_000
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range runs {
		f()
	}
	runtime.ReadMemStats(&after)
	return float64(after.Mallocs-before.Mallocs) / runs, float64(after.TotalAlloc-before.TotalAlloc) / runs
}
