package otelmetric_test

import (
	"context"
	"fmt"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/otelmetric"
)

// A program would have a PeriodicReader with an exporter in the place of this reader.
func Example() {
	mem := alloctrace.Wrap(blockalloc.Default(), alloctrace.WithName("cache"))

	sizes := new(otelmetric.Producer)
	reader := sdkmetric.NewManualReader(sdkmetric.WithProducer(sizes))
	provider := sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))
	reg, err := otelmetric.Register(mem, otelmetric.WithMeterProvider(provider), otelmetric.WithProducer(sizes))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer reg.Close()

	block, err := mem.Allocate(blockalloc.BlockLayout(64 << 10))
	if err != nil {
		fmt.Println(err)
		return
	}
	defer mem.Free(block)

	var collected metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &collected); err != nil {
		fmt.Println(err)
		return
	}
	for _, scope := range collected.ScopeMetrics {
		for _, m := range scope.Metrics {
			if sum, ok := m.Data.(metricdata.Sum[int64]); ok && m.Name == "allocator.memory.used" {
				fmt.Println(m.Name, sum.DataPoints[0].Value, m.Unit)
			}
		}
	}
	// Output: allocator.memory.used 65536 By
}
