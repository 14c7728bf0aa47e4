package otellog_test

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"sync"
	"testing"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/log"
	"go.opentelemetry.io/otel/log/embedded"
	sdklog "go.opentelemetry.io/otel/sdk/log"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/otellog"
	"github.com/alloctrace/alloctrace/tracer"
)

// A keeper is an exporter of the SDK that keeps the records.
type keeper struct {
	mu      sync.Mutex
	records []sdklog.Record
}

func (k *keeper) Export(_ context.Context, records []sdklog.Record) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range records {
		k.records = append(k.records, r.Clone())
	}
	return nil
}

func (k *keeper) Shutdown(context.Context) error   { return nil }
func (k *keeper) ForceFlush(context.Context) error { return nil }

// TestIDs: with the SDKs of traces and of logs, the record of a failure has the ids of the region's span, as a line of slog has
// them.
func TestIDs(t *testing.T) {
	exported := tracetest.NewInMemoryExporter()
	traces := sdktrace.NewTracerProvider(sdktrace.WithSyncer(exported))
	kept := new(keeper)
	logs := sdklog.NewLoggerProvider(sdklog.WithProcessor(sdklog.NewSimpleProcessor(kept)))
	var line bytes.Buffer
	mem := alloctrace.Wrap(blockalloc.NewLimit(alloctest.New(t), 1<<10), alloctrace.WithName("cache"))
	ctx, region := tracer.Start(t.Context(), "load", mem, tracer.WithTracerProvider(traces), tracer.WithLogs(otellog.New(logs)))
	_, failure := mem.Child("pages").WithContext(ctx).Allocate(blockalloc.BlockLayout(4 << 10))
	slog.New(tracer.NewSlogHandler(slog.NewJSONHandler(&line, nil))).ErrorContext(ctx, "not loaded")
	region.End()
	if err := logs.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}

	if len(kept.records) != 1 {
		t.Fatalf("%d records, want 1", len(kept.records))
	}
	r := kept.records[0]
	if r.EventName() != "allocator.failure" || r.Severity() != log.SeverityError || r.SeverityText() != "ERROR" ||
		r.Body().AsString() != failure.Error() || r.InstrumentationScope().Name != tracer.ScopeName || r.Timestamp().IsZero() {
		t.Errorf("%q %v %q %q of %v at %v", r.EventName(), r.Severity(), r.SeverityText(), r.Body().AsString(), r.InstrumentationScope(), r.Timestamp())
	}
	got := make(map[attribute.Key]any)
	r.WalkAttributes(func(a attribute.KeyValue) bool {
		got[a.Key] = a.Value.AsInterface()
		return true
	})
	for key, want := range map[attribute.Key]any{
		"allocator.operation": "allocate", "allocator.size": int64(4096), "allocator.align": int64(4096), "error.type": "limit",
	} {
		if got[key] != want || len(got) != 4 {
			t.Errorf("%s is %v, want %v; %d attributes, want 4", key, got[key], want, len(got))
		}
	}

	spans := exported.GetSpans() // the failure's, then the region's
	if len(spans) != 2 || spans[1].Name != "load" {
		t.Fatalf("%d spans: %+v", len(spans), spans)
	}
	if id := spans[1].SpanContext; r.TraceID() != id.TraceID() || r.SpanID() != id.SpanID() || !r.TraceFlags().IsSampled() {
		t.Errorf("the record is of %v/%v, the region of %v/%v", r.TraceID(), r.SpanID(), id.TraceID(), id.SpanID())
	}
	if spans[0].Parent.SpanID() != r.SpanID() {
		t.Errorf("the failure's span is below %v, want %v", spans[0].Parent.SpanID(), r.SpanID())
	}
	var ids struct {
		Trace string `json:"trace_id"`
		Span  string `json:"span_id"`
	}
	if err := json.Unmarshal(line.Bytes(), &ids); err != nil || ids.Trace != r.TraceID().String() || ids.Span != r.SpanID().String() {
		t.Errorf("slog has %s, the record %v and %v: %v", line.String(), r.TraceID(), r.SpanID(), err)
	}
}

// A recorder is a LoggerProvider that keeps what it is asked and given.
type recorder struct {
	embedded.LoggerProvider
	off     bool
	asked   []log.EnabledParameters
	records []log.Record
}

func (r *recorder) Logger(string, ...log.LoggerOption) log.Logger { return &logger{recorder: r} }

type logger struct {
	embedded.Logger
	recorder *recorder
}

func (l *logger) Enabled(_ context.Context, p log.EnabledParameters) bool {
	l.recorder.asked = append(l.recorder.asked, p)
	return !l.recorder.off
}

func (l *logger) Emit(_ context.Context, r log.Record) {
	l.recorder.records = append(l.recorder.records, r)
}

// TestOff: a logger that is off is asked, and given nothing.
func TestOff(t *testing.T) {
	r := recorder{off: true}
	emit := otellog.New(&r)
	emit(t.Context(), tracer.LogRecord{Event: "allocator.failure", Level: slog.LevelError})
	if want := (log.EnabledParameters{Severity: log.SeverityError, EventName: "allocator.failure"}); len(r.asked) != 1 || r.asked[0] != want || len(r.records) != 0 {
		t.Errorf("asked for %v, given %d records; want asked for %v once", r.asked, len(r.records), want)
	}
	r.off = false
	emit(t.Context(), tracer.LogRecord{Event: "allocator.failure", Level: slog.LevelError})
	if len(r.records) != 1 {
		t.Errorf("on: %d records, want 1", len(r.records))
	}
}

// TestSeverities: the levels of slog are the severities of the same names.
func TestSeverities(t *testing.T) {
	var r recorder
	emit := otellog.New(&r)
	for _, level := range []slog.Level{slog.LevelDebug, slog.LevelInfo, slog.LevelWarn, slog.LevelError} {
		emit(t.Context(), tracer.LogRecord{Level: level})
		if got := r.records[len(r.records)-1]; got.Severity().String() != level.String() || got.SeverityText() != level.String() {
			t.Errorf("level %v has severity %v, text %q", level, got.Severity(), got.SeverityText())
		}
	}
}

// TestGlobal: nil is the global provider, also one that is set later.
func TestGlobal(t *testing.T) {
	emit := otellog.New(nil)
	emit(t.Context(), tracer.LogRecord{Event: "lost"}) // there is none yet
	var r recorder
	otel.SetLoggerProvider(&r)
	emit(t.Context(), tracer.LogRecord{Event: "kept"})
	if len(r.records) != 1 || r.records[0].EventName() != "kept" {
		t.Errorf("%d records, want one", len(r.records))
	}
}
