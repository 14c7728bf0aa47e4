package tracer_test

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"sync"
	"testing"
	"unicode/utf8"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/measure"
	"github.com/alloctrace/alloctrace/internal/text"
	"github.com/alloctrace/alloctrace/internal/text/texttest"
	"github.com/alloctrace/alloctrace/tracer"
)

// A logRecorder keeps the records that it is given.
type logRecorder struct {
	mu      sync.Mutex
	records []tracer.LogRecord
	spans   []trace.SpanContext
}

func (r *logRecorder) emit(ctx context.Context, l tracer.LogRecord) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.records, r.spans = append(r.records, l), append(r.spans, trace.SpanContextFromContext(ctx))
}

// TestFailureLogs: a failure in a region is one record, in the trace and the span of the innermost region, and has the attributes of
// the failure's span.
func TestFailureLogs(t *testing.T) {
	var spans recorder
	var logs, outerLogs logRecorder
	with := []tracer.Option{tracer.WithTracerProvider(&spans), tracer.WithAttributes(attribute.String("shard", "7"))}
	mem := alloctrace.Wrap(blockalloc.Null{}, alloctrace.WithHooks(tracer.Failures(tracer.WithLogs(outerLogs.emit))))
	ctx, outer := tracer.Start(t.Context(), "outer", mem, append(with, tracer.WithLogs(outerLogs.emit))...)
	_, r := tracer.Start(ctx, "region", mem, append(with, tracer.WithLogs(logs.emit))...)
	_, err := r.Allocator().Child("cache").Allocate(blockalloc.Layout{Size: 100, Align: 64})
	if len(logs.records) != 1 || len(outerLogs.records) != 0 || len(spans.Spans) != 3 {
		t.Fatalf("%d and %d records, %d spans; want 1, 0 and 3", len(logs.records), len(outerLogs.records), len(spans.Spans))
	}
	got, region, failure := logs.records[0], spans.Spans[1], spans.Spans[2]
	if id := logs.spans[0]; id.TraceID() != region.Context.TraceID() || id.SpanID() != region.Context.SpanID() {
		t.Errorf("the record is of %v/%v, want that of the region, %v", id.TraceID(), id.SpanID(), region.Context.SpanID())
	}
	if got.Event != "allocator.failure" || got.Level != slog.LevelError || got.Body != err.Error() || got.Body != failure.Description {
		t.Errorf("the record is %+v, and the error %v", got, err)
	}
	attributes := make(map[attribute.Key]attribute.Value)
	for _, a := range got.Attributes {
		attributes[a.Key] = a.Value
	}
	want := map[attribute.Key]attribute.Value{
		"shard":               attribute.StringValue("7"),
		"allocator.operation": attribute.StringValue("allocate"),
		"allocator.size":      attribute.Int64Value(100),
		"allocator.align":     attribute.Int64Value(64),
		"error.type":          attribute.StringValue("out_of_memory"),
	}
	if !maps.Equal(attributes, want) || !maps.Equal(failure.Attributes, want) {
		t.Errorf("the record has %v, its span %v, want %v", attributes, failure.Attributes, want)
	}
	r.End()
	outer.End()
}

// TestFailureLogsBeyondSpans: what has no span for want of a place has a record all the same; in the span that is in the context, where
// there is no region.
func TestFailureLogsBeyondSpans(t *testing.T) {
	for most, wantSpans := range map[int]int{0: 0, 2: 2, 9: 5} {
		var spans, caller recorder
		var logs logRecorder
		ctx, span := caller.Tracer("").Start(t.Context(), "caller")
		mem := alloctrace.Wrap(blockalloc.Null{}, alloctrace.WithHooks(
			tracer.Failures(tracer.WithTracerProvider(&spans), tracer.WithLogs(logs.emit), tracer.WithMaxFailures(most))))
		for range 5 {
			_, _ = mem.WithContext(ctx).Allocate(blockalloc.BlockLayout(64))
		}
		if len(spans.Spans) != wantSpans || len(logs.records) != 5 {
			t.Errorf("at most %d spans: %d spans and %d records, want %d and 5", most, len(spans.Spans), len(logs.records), wantSpans)
		}
		for _, id := range logs.spans {
			if id.SpanID() != span.SpanContext().SpanID() {
				t.Errorf("a record is of span %v, want the caller's, %v", id.SpanID(), span.SpanContext().SpanID())
			}
		}
	}
}

// TestInSpanLogs: a region on the span of another logs in that span.
func TestInSpanLogs(t *testing.T) {
	var spans recorder
	var logs logRecorder
	ctx, span := spans.Tracer("").Start(t.Context(), "request")
	_, r := tracer.InSpan(ctx, blockalloc.Null{}, tracer.WithLogs(logs.emit))
	_ = r.Allocator().Free(allocate(t, new(blockalloc.Heap), 64))
	r.End()
	if len(logs.records) != 1 || logs.spans[0].SpanID() != span.SpanContext().SpanID() {
		t.Errorf("%+v in %v, want one record in %v", logs.records, logs.spans, span.SpanContext().SpanID())
	}
}

// TestUglyFailureLogs: the body is valid UTF-8 and bounded, whatever the text of the error is.
func TestUglyFailureLogs(t *testing.T) {
	for _, ugly := range texttest.Table() {
		var logs logRecorder
		failed := alloctrace.Event{Kind: alloctrace.FreeFailed, Size: 64, Align: 64}
		tracer.Failures(tracer.WithLogs(logs.emit)).Observe(t.Context(), failed, errors.New(ugly.Text))
		if len(logs.records) != 1 {
			t.Fatalf("%s: %d records", ugly.Case, len(logs.records))
		}
		if body := logs.records[0].Body; !utf8.ValidString(body) || len(body) > text.MaxText || body != text.Text(ugly.Text) {
			t.Errorf("%s: the body is %.200q", ugly.Case, body)
		}
	}
}

// TestFailureLogsCost: what succeeds costs no allocation with the option, and a failure that has neither span nor record none either.
func TestFailureLogsCost(t *testing.T) {
	var logs logRecorder
	_, r := tracer.Start(t.Context(), "region", measure.NewInner(), tracer.WithLogs(logs.emit))
	measure.WantAllocs(t, 0, func() {
		b, _ := r.Allocator().Allocate(blockalloc.BlockLayout(4 << 10))
		_ = r.Allocator().Free(b)
	})
	r.End()
	hook := tracer.Failures(tracer.WithMaxFailures(0))
	failed := alloctrace.Event{Kind: alloctrace.AllocateFailed, Size: 64, Align: 64}
	measure.WantAllocs(t, 0, func() { hook.Observe(t.Context(), failed, blockalloc.ErrOutOfMemory) })
	if len(logs.records) != 0 {
		t.Errorf("%d records of what did not fail", len(logs.records))
	}
}

// TestConcurrentFailureLogs: goroutines that fail in one region have a record each, and attributes that nobody else writes.
func TestConcurrentFailureLogs(t *testing.T) {
	var logs logRecorder
	_, r := tracer.Start(t.Context(), "region", blockalloc.Null{}, tracer.WithLogs(logs.emit),
		tracer.WithAttributes(attribute.Int("a", 1)), tracer.WithAttributes(attribute.Int("b", 2)), tracer.WithAttributes(attribute.Int("c", 3)))
	var all sync.WaitGroup
	for size := range 8 {
		all.Go(func() {
			for range 100 {
				_, _ = r.Allocator().Allocate(blockalloc.Layout{Size: uintptr(size + 1), Align: 1})
			}
		})
	}
	all.Wait()
	r.End()
	sizes := make(map[int64]int)
	for _, l := range logs.records {
		sizes[l.Attributes[4].Value.AsInt64()]++
	}
	for size := range int64(8) {
		if sizes[size+1] != 100 {
			t.Errorf("%d records of size %d, want 100", sizes[size+1], size+1)
		}
	}
}

func TestWithLogsNil(t *testing.T) {
	defer func() {
		if got, want := recover(), "tracer: WithLogs(nil): pass a function, such as otellog.New(provider)"; got != want {
			t.Errorf("panics with %v, want %v", got, want)
		}
	}()
	tracer.WithLogs(nil)
}
