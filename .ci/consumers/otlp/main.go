// Otlp writes a region's span to a file that Jaeger opens.
package main

import (
	"context"
	"os"
	"path/filepath"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/otlp"
	"github.com/alloctrace/alloctrace/tracer"
)

func main() {
	dir, err := os.MkdirTemp("", "consumer")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "trace.json")
	ctx := context.Background()
	provider, err := otlp.New(ctx, otlp.Options{File: path, ServiceName: "consumer"})
	if err != nil {
		panic(err)
	}
	_, region := tracer.Start(ctx, "load", alloctrace.Wrap(blockalloc.Default()), tracer.WithTracerProvider(provider))
	region.End()
	if err := provider.Shutdown(ctx); err != nil {
		panic(err)
	}
	if trace, err := os.ReadFile(path); err != nil || len(trace) == 0 {
		panic(err)
	}
}
