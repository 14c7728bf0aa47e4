package otlp_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"go.opentelemetry.io/otel"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/otlp"
	"github.com/alloctrace/alloctrace/tracer"
)

// The README shows the body of this function.
func loadTraced(ctx context.Context, mem blockalloc.Allocator) error {
	provider, err := otlp.New(ctx, otlp.Options{ServiceName: "indexer"}) // to OTEL_EXPORTER_OTLP_ENDPOINT
	if err != nil {
		return err
	}
	defer provider.Shutdown(context.WithoutCancel(ctx))
	otel.SetTracerProvider(provider)

	ctx, region := tracer.Start(ctx, "load-index", mem)
	defer region.End()
	return load(ctx, region.Allocator())
}

// load stands for the work to be traced.
func load(_ context.Context, mem blockalloc.Allocator) error {
	b, err := mem.Allocate(blockalloc.BlockLayout(64 << 10))
	if err != nil {
		return err
	}
	return mem.Free(b)
}

// A program that has no collector: the spans are counted as lost, and its work
// is done all the same.
func Example_traced() {
	os.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	defer os.Unsetenv("OTEL_EXPORTER_OTLP_ENDPOINT")
	fmt.Println(loadTraced(context.Background(), blockalloc.Default()))
	// Output: <nil>
}

// A region's span goes to a file that the Upload tab of Jaeger's UI opens.
func ExampleNew() {
	dir, err := os.MkdirTemp("", "example")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(dir)

	ctx := context.Background()
	p, err := otlp.New(ctx, otlp.Options{File: filepath.Join(dir, "trace.json"), ServiceName: "indexer"})
	if err != nil {
		fmt.Println(err)
		return
	}
	mem := alloctrace.Wrap(blockalloc.Default(), alloctrace.WithName("index"))
	_, region := tracer.Start(ctx, "load-index", mem, tracer.WithTracerProvider(p))
	block, err := region.Allocator().Allocate(blockalloc.BlockLayout(64 << 10))
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := region.Allocator().Free(block); err != nil {
		fmt.Println(err)
	}
	region.End()

	if err := p.Shutdown(ctx); err != nil {
		fmt.Println(err) // says how many spans did not arrive, and why
	}
	s := p.Stats()
	fmt.Println(s.Accepted, "accepted,", s.Exported, "exported,", s.Lost(), "lost")
	// Output: 1 accepted, 1 exported, 0 lost
}
