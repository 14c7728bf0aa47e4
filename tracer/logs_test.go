package tracer_test

import (
	"context"
	"errors"
	"maps"
	"sync"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/log/embedded"
	"go.opentelemetry.io/otel/log/noop"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/measure"
	"github.com/alloctrace/alloctrace/internal/text"
	"github.com/alloctrace/alloctrace/internal/text/texttest"
	"github.com/alloctrace/alloctrace/tracer"
)

// logRecorder is a LoggerProvider that keeps the records that are emitted through it.
type logRecorder struct {
	embedded.LoggerProvider
	mu      sync.Mutex
	off     bool
	asked   []log.EnabledParameters
	records []logRecord
}

type logRecord struct {
	log.Record
	scope string
	span  trace.SpanContext
}

func (r *logRecorder) Logger(scope string, _ ...log.LoggerOption) log.Logger {
	return &recordingLogger{recorder: r, scope: scope}
}

type recordingLogger struct {
	embedded.Logger
	recorder *logRecorder
	scope    string
}

func (l *recordingLogger) Enabled(_ context.Context, p log.EnabledParameters) bool {
	l.recorder.mu.Lock()
	defer l.recorder.mu.Unlock()
	l.recorder.asked = append(l.recorder.asked, p)
	return !l.recorder.off
}

func (l *recordingLogger) Emit(ctx context.Context, r log.Record) {
	l.recorder.mu.Lock()
	defer l.recorder.mu.Unlock()
	l.recorder.records = append(l.recorder.records, logRecord{r, l.scope, trace.SpanContextFromContext(ctx)})
}

func (r *logRecord) attributes() map[attribute.Key]attribute.Value {
	got := make(map[attribute.Key]attribute.Value)
	r.WalkAttributes(func(a attribute.KeyValue) bool {
		got[a.Key] = a.Value
		return true
	})
	return got
}

// TestFailureLogs: a failure in a region is one record, in the trace and the span of the innermost region, and has the attributes of
// the failure's span.
func TestFailureLogs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var spans recorder
		var logs, outerLogs logRecorder
		with := []tracer.Option{tracer.WithTracerProvider(&spans), tracer.WithAttributes(attribute.String("shard", "7"))}
		mem := alloctrace.Wrap(blockalloc.Null{}, alloctrace.WithHooks(tracer.Failures(tracer.WithLoggerProvider(&outerLogs))))
		ctx, outer := tracer.Start(t.Context(), "outer", mem, append(with, tracer.WithLoggerProvider(&outerLogs))...)
		_, r := tracer.Start(ctx, "region", mem, append(with, tracer.WithLoggerProvider(&logs))...)
		time.Sleep(time.Minute)
		_, err := r.Allocator().Child("cache").Allocate(blockalloc.Layout{Size: 100, Align: 64})
		if len(logs.records) != 1 || len(outerLogs.records) != 0 || len(spans.spans) != 3 {
			t.Fatalf("%d and %d records, %d spans; want 1, 0 and 3", len(logs.records), len(outerLogs.records), len(spans.spans))
		}
		got, region, failure := logs.records[0], spans.spans[1], spans.spans[2]
		if got.span.TraceID() != region.context.TraceID() || got.span.SpanID() != region.context.SpanID() {
			t.Errorf("the record is of %v/%v, want that of the region, %v", got.span.TraceID(), got.span.SpanID(), region.context.SpanID())
		}
		if got.scope != tracer.ScopeName || got.EventName() != "allocator.failure" || got.Severity() != log.SeverityError || got.SeverityText() != "ERROR" ||
			got.Body().AsString() != err.Error() || got.Body().AsString() != failure.description || got.Timestamp() != time.Now() {
			t.Errorf("scope %s: %q %v %q at %v: %q", got.scope, got.EventName(), got.Severity(), got.SeverityText(), got.Timestamp(), got.Body().AsString())
		}
		want := map[attribute.Key]attribute.Value{
			"shard":               attribute.StringValue("7"),
			"allocator.operation": attribute.StringValue("allocate"),
			"allocator.size":      attribute.Int64Value(100),
			"allocator.align":     attribute.Int64Value(64),
			"error.type":          attribute.StringValue("out_of_memory"),
		}
		if !maps.Equal(got.attributes(), want) || !maps.Equal(failure.attributes, want) {
			t.Errorf("the record has %v, its span %v, want %v", got.attributes(), failure.attributes, want)
		}
		if want := (log.EnabledParameters{Severity: log.SeverityError, EventName: "allocator.failure"}); len(logs.asked) != 1 || logs.asked[0] != want {
			t.Errorf("Enabled was asked for %v, want %v once", logs.asked, want)
		}
		r.End()
		outer.End()
	})
}

// TestFailureLogsBeyondSpans: what has no span for want of a place has a record all the same; in the span that is in the context, where
// there is no region.
func TestFailureLogsBeyondSpans(t *testing.T) {
	for max, wantSpans := range map[int]int{0: 0, 2: 2, 9: 5} {
		var spans, caller recorder
		var logs logRecorder
		ctx, span := caller.Tracer("").Start(t.Context(), "caller")
		mem := alloctrace.Wrap(blockalloc.Null{}, alloctrace.WithHooks(
			tracer.Failures(tracer.WithTracerProvider(&spans), tracer.WithLoggerProvider(&logs), tracer.WithMaxFailures(max))))
		for range 5 {
			_, _ = mem.WithContext(ctx).Allocate(blockalloc.BlockLayout(64))
		}
		if len(spans.spans) != wantSpans || len(logs.records) != 5 {
			t.Errorf("at most %d spans: %d spans and %d records, want %d and 5", max, len(spans.spans), len(logs.records), wantSpans)
		}
		for _, r := range logs.records {
			if r.span.SpanID() != span.SpanContext().SpanID() {
				t.Errorf("a record is of span %v, want the caller's, %v", r.span.SpanID(), span.SpanContext().SpanID())
			}
		}
	}
}

// TestNoFailureLogs: without the option nobody is asked for a logger, the global provider included, which is meant by nil. A logger
// that is off is asked and given nothing.
func TestNoFailureLogs(t *testing.T) {
	var logs logRecorder
	before := otel.GetLoggerProvider()
	otel.SetLoggerProvider(&logs)
	t.Cleanup(func() { otel.SetLoggerProvider(before) })
	fail := func(opts ...tracer.Option) {
		_, r := tracer.InSpan(t.Context(), blockalloc.Null{}, opts...)
		_, _ = r.Allocator().Allocate(blockalloc.BlockLayout(64))
		r.End()
	}
	fail()
	if len(logs.asked)+len(logs.records) != 0 {
		t.Errorf("without the option: asked for %v, given %d records", logs.asked, len(logs.records))
	}
	fail(tracer.WithLoggerProvider(nil))
	if len(logs.records) != 1 {
		t.Errorf("the global provider: %d records, want 1", len(logs.records))
	}
	logs.off = true
	fail(tracer.WithLoggerProvider(nil))
	if len(logs.asked) != 2 || len(logs.records) != 1 {
		t.Errorf("off: asked %d times, %d records, want 2 and 1", len(logs.asked), len(logs.records))
	}
}

// TestUglyFailureLogs: the body is valid UTF-8 and bounded, whatever the text of the error is.
func TestUglyFailureLogs(t *testing.T) {
	for _, ugly := range texttest.Table() {
		var logs logRecorder
		failed := alloctrace.Event{Kind: alloctrace.FreeFailed, Size: 64, Align: 64}
		tracer.Failures(tracer.WithLoggerProvider(&logs)).Observe(t.Context(), failed, errors.New(ugly.Text))
		if len(logs.records) != 1 {
			t.Fatalf("%s: %d records", ugly.Case, len(logs.records))
		}
		if body := logs.records[0].Body().AsString(); !utf8.ValidString(body) || len(body) > text.MaxText || body != text.Text(ugly.Text) {
			t.Errorf("%s: the body is %.200q", ugly.Case, body)
		}
	}
}

// TestFailureLogsCost: what succeeds costs no allocation with the option, and a failure without spans and records none either.
func TestFailureLogsCost(t *testing.T) {
	page := blockalloc.BlockLayout(4 << 10)
	_, r := tracer.Start(t.Context(), "region", measure.NewInner(), tracer.WithLoggerProvider(noop.NewLoggerProvider()))
	measure.WantAllocs(t, 0, func() {
		b, _ := r.Allocator().Allocate(page)
		_ = r.Allocator().Free(b)
	})
	hook := tracer.Failures(tracer.WithMaxFailures(0))
	failed := alloctrace.Event{Kind: alloctrace.AllocateFailed, Size: 64, Align: 64}
	measure.WantAllocs(t, 0, func() { hook.Observe(t.Context(), failed, blockalloc.ErrOutOfMemory) })
	r.End()
}

// TestConcurrentFailureLogs: goroutines that fail in one region have a record each.
func TestConcurrentFailureLogs(t *testing.T) {
	var logs logRecorder
	_, r := tracer.Start(t.Context(), "region", blockalloc.Null{}, tracer.WithLoggerProvider(&logs))
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				_, _ = r.Allocator().Allocate(blockalloc.BlockLayout(64))
			}
		})
	}
	all.Wait()
	r.End()
	if len(logs.records) != 800 {
		t.Errorf("%d records, want 800", len(logs.records))
	}
}
