// Otelmetric has the counters as OpenTelemetry metrics.
package main

import (
	"context"

	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/otelmetric"
)

func main() {
	reader := sdkmetric.NewManualReader()
	mem := alloctrace.Wrap(blockalloc.Default(), alloctrace.WithName("cache"))
	reg, err := otelmetric.Register(mem, otelmetric.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))))
	if err != nil {
		panic(err)
	}
	defer reg.Close()
	var got metricdata.ResourceMetrics
	if err := reader.Collect(context.Background(), &got); err != nil || len(got.ScopeMetrics) == 0 {
		panic(err)
	}
}
