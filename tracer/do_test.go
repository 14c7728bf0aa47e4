package tracer_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/tracer"
)

func ExampleDo() {
	mem := alloctrace.Wrap(blockalloc.Default())
	var rows blockalloc.Block
	err := tracer.Do(context.Background(), "SELECT pages", mem, func(ctx context.Context) (err error) {
		rows, err = mem.Child("rows").WithContext(ctx).Allocate(blockalloc.BlockLayout(4096)) // and db.QueryContext(ctx, …)
		fmt.Println(tracer.FromContext(ctx).Name(), tracer.FromContext(ctx).Stats().AllocatedBytes, "bytes")
		return err
	})
	fmt.Println(err, mem.Free(rows))
	// Output:
	// SELECT pages 4096 bytes
	// <nil> <nil>
}

func TestDo(t *testing.T) {
	mem := alloctest.New(t)
	for _, c := range []struct {
		name, description, errorType string
		err                          error
	}{
		{"no error", "", "", nil},
		{"of memory", "rows: " + blockalloc.ErrOutOfMemory.Error(), "out_of_memory", fmt.Errorf("rows: %w", blockalloc.ErrOutOfMemory)},
		{"of anything", "no \uFFFD", "_OTHER", errors.New("no \xff")},
	} {
		var spans recorder
		ctx, outer := spans.Tracer("").Start(t.Context(), "outer")
		err := tracer.Do(ctx, "query", mem, func(ctx context.Context) error {
			free(t, mem.WithContext(ctx), allocate(t, mem.WithContext(ctx), 300))
			return c.err
		}, tracer.WithAttributes(attribute.String("db.system.name", "sqlite")))
		s := spans.Spans[1]
		status := codes.Unset
		if c.err != nil {
			status = codes.Error
		}
		if err != c.err || len(spans.Spans) != 2 || s.Name != "query" || s.Ends != 1 || s.Parent != outer.SpanContext().SpanID() ||
			s.Attributes["allocator.memory.allocated"].AsInt64() != 300 || s.Attributes["db.system.name"].AsString() != "sqlite" {
			t.Errorf("%s: error %v, span %+v", c.name, err, s)
		}
		if s.Status != status || s.Description != c.description || s.Attributes["error.type"].AsString() != c.errorType {
			t.Errorf("%s: the span has status %v %q, %v", c.name, s.Status, s.Description, s.Attributes["error.type"])
		}
		if spans.Spans[0].Status != codes.Unset {
			t.Errorf("%s: the outer span has status %v", c.name, spans.Spans[0].Status)
		}
	}
}

// TestDoPanics: the panic goes on with its value, and the span has recorded it and has ended.
func TestDoPanics(t *testing.T) {
	var spans recorder
	var got any
	func() {
		defer func() { got = recover() }()
		_ = tracer.Do(t.Context(), "query", blockalloc.Null{}, func(context.Context) error { panic("oh") }, tracer.WithTracerProvider(&spans))
	}()
	if s := spans.Spans[0]; got != "oh" || s.Ends != 1 || len(s.Panics) != 1 || s.Panics[0] != "oh" {
		t.Errorf("the panic is %v, the span %+v", got, s)
	}
}

// TestDoWithoutSpan: the error of a region that is not recorded is not that of the span around it.
func TestDoWithoutSpan(t *testing.T) {
	var spans recorder
	ctx, _ := spans.Tracer("").Start(t.Context(), "outer")
	failure := errors.New("no")
	err := tracer.Do(ctx, "query", blockalloc.Null{}, func(context.Context) error { return failure }, tracer.WithTracerProvider(passing{}))
	if err != failure || spans.Spans[0].Status != codes.Unset || len(spans.Spans) != 1 {
		t.Errorf("error %v, the outer span %+v", err, spans.Spans[0])
	}
}

// passing is a TracerProvider that starts no span: the context keeps the one around it.
type passing struct{ noop.TracerProvider }

func (passing) Tracer(string, ...trace.TracerOption) trace.Tracer { return passingTracer{} }

type passingTracer struct{ noop.Tracer }

func (passingTracer) Start(ctx context.Context, _ string, _ ...trace.SpanStartOption) (context.Context, trace.Span) {
	return ctx, trace.SpanFromContext(context.Background())
}
