// Otlpfile writes a region's span to a file that Jaeger opens, by the SDK's provider.
package main

import (
	"context"
	"os"
	"path/filepath"

	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/otlpfile"
	"github.com/alloctrace/alloctrace/tracer"
)

func main() {
	dir, err := os.MkdirTemp("", "consumer")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "trace.json")
	exporter, err := otlpfile.Create(path)
	if err != nil {
		panic(err)
	}
	ctx := context.Background()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exporter))
	_, region := tracer.Start(ctx, "load", alloctrace.Wrap(blockalloc.Default()), tracer.WithTracerProvider(provider))
	region.End()
	if err := provider.Shutdown(ctx); err != nil {
		panic(err)
	}
	if trace, err := os.ReadFile(path); err != nil || len(trace) == 0 {
		panic(err)
	}
}
