// Otellog emits the failures of a region as log records of OpenTelemetry.
package main

import (
	"context"

	"go.opentelemetry.io/otel/log/noop"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/otellog"
	"github.com/alloctrace/alloctrace/tracer"
)

func main() {
	ctx, region := tracer.Start(context.Background(), "load", alloctrace.Wrap(blockalloc.Null{}), tracer.WithLogs(otellog.New(noop.NewLoggerProvider())))
	if _, err := region.Allocator().WithContext(ctx).Allocate(blockalloc.BlockLayout(64)); err == nil {
		panic("Null has memory")
	}
	region.End()
}
