package otlp

import (
	"context"
	"errors"
	"fmt"
	"os"

	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"

	"github.com/alloctrace/alloctrace/exporters/otlpfile"
)

// A lineWriter is what of an *otlpfile.Exporter is used.
type lineWriter interface {
	ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error
	Close() error
	Stats() otlpfile.Stats
}

// openFile opens the file or the files, or standard output if path is "".
func openFile(path string, r otlpfile.Rotation) (f lineWriter, err error) {
	switch {
	case path == "":
		return otlpfile.New(os.Stdout), nil
	case r == otlpfile.Rotation{}:
		f, err = otlpfile.Create(path)
	default:
		f, err = otlpfile.CreateRotating(path, r)
	}
	if err != nil {
		return nil, fmt.Errorf("Options.File=%q: %w", path, errors.Unwrap(err)) // which says the path, too
	}
	return f, nil
}

// A fileCourier writes batches to a file, and records what became of their spans. Like a courier, it hands no error of a
// write back.
type fileCourier struct {
	file     lineWriter
	ledger   *ledger
	abort    context.Context // ends when Shutdown gives up
	resource *resource.Resource
}

var _ sdktrace.SpanExporter = (*fileCourier)(nil)

func (c *fileCourier) ExportSpans(ctx context.Context, spans []sdktrace.ReadOnlySpan) error {
	n := int64(len(spans))
	if c.abort.Err() != nil {
		c.ledger.settle(0, n, errGivenUp)
		return nil
	}
	own := make([]sdktrace.ReadOnlySpan, n)
	for i, s := range spans {
		own[i] = ownResource{s, c.resource}
	}
	if err := c.file.ExportSpans(ctx, own); err != nil {
		c.ledger.settle(0, n, err)
	} else {
		c.ledger.settle(n, 0, nil)
	}
	return nil
}

// Shutdown leaves the spans that are not in the file to the ledger.
func (c *fileCourier) Shutdown(context.Context) error { return c.file.Close() }

// An ownResource is a span with the resource as it is sent, see protoResource.
type ownResource struct {
	sdktrace.ReadOnlySpan
	resource *resource.Resource
}

func (s ownResource) Resource() *resource.Resource { return s.resource }
