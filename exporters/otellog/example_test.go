package otellog_test

import (
	"context"
	"fmt"

	sdklog "go.opentelemetry.io/otel/sdk/log"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/otellog"
	"github.com/alloctrace/alloctrace/tracer"
)

func Example() {
	ctx, kept := context.Background(), new(keeper) // an exporter: otlploghttp, for example
	logs := sdklog.NewLoggerProvider(sdklog.WithProcessor(sdklog.NewBatchProcessor(kept)))
	_, region := tracer.Start(ctx, "load-index", blockalloc.Null{}, tracer.WithLogs(otellog.New(logs)))
	_, _ = region.Allocator().Allocate(blockalloc.BlockLayout(4096))
	region.End()
	if err := logs.Shutdown(ctx); err != nil { // sends what is left
		fmt.Println(err)
	}
	for _, r := range kept.records {
		fmt.Println(r.SeverityText(), r.EventName(), r.Body().AsString())
	}
	// Output:
	// ERROR allocator.failure blockalloc: Null.Allocate(4096 B aligned to 4096): out of memory
}
