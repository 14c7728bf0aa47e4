package otlp

import (
	"bytes"
	"context"
	"encoding/json"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/log"
	sdklog "go.opentelemetry.io/otel/sdk/log"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/tracer"
)

// logKeeper is an exporter of the SDK that keeps the records.
type logKeeper struct {
	mu      sync.Mutex
	records []sdklog.Record
}

func (k *logKeeper) Export(_ context.Context, records []sdklog.Record) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, r := range records {
		k.records = append(k.records, r.Clone())
	}
	return nil
}

func (k *logKeeper) Shutdown(context.Context) error   { return nil }
func (k *logKeeper) ForceFlush(context.Context) error { return nil }

// TestLogs: with the SDKs of traces and logs, the record of a failure has the ids of the region's span, as the trace file and a
// line of slog have them.
func TestLogs(t *testing.T) {
	file := filepath.Join(t.TempDir(), "trace.json")
	spans, err := New(t.Context(), Options{ServiceName: "logs", File: file})
	if err != nil {
		t.Fatal(err)
	}
	var kept logKeeper
	logs := sdklog.NewLoggerProvider(sdklog.WithProcessor(sdklog.NewSimpleProcessor(&kept)))
	var line bytes.Buffer
	mem := alloctrace.Wrap(blockalloc.NewLimit(blockalloc.Default(), 1<<10), alloctrace.WithName("cache"))
	ctx, region := tracer.Start(t.Context(), "load", mem, tracer.WithTracerProvider(spans), tracer.WithLoggerProvider(logs))
	_, failure := mem.Child("pages").WithContext(ctx).Allocate(blockalloc.BlockLayout(4 << 10))
	slog.New(tracer.NewSlogHandler(slog.NewJSONHandler(&line, nil))).ErrorContext(ctx, "not loaded")
	region.End()
	for _, err := range []error{logs.Shutdown(t.Context()), spans.Shutdown(t.Context())} {
		if err != nil {
			t.Fatal(err)
		}
	}

	if len(kept.records) != 1 {
		t.Fatalf("%d records, want 1", len(kept.records))
	}
	r := kept.records[0]
	if r.EventName() != "allocator.failure" || r.Severity() != log.SeverityError || r.Body().AsString() != failure.Error() ||
		r.InstrumentationScope().Name != tracer.ScopeName || r.Timestamp().IsZero() {
		t.Errorf("%q %v %q of %v at %v", r.EventName(), r.Severity(), r.Body().AsString(), r.InstrumentationScope(), r.Timestamp())
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
			t.Errorf("%s is %v, want %v; %d attributes", key, got[key], want, len(got))
		}
	}

	var ids struct {
		TraceID string `json:"trace_id"`
		SpanID  string `json:"span_id"`
	}
	if err := json.Unmarshal(line.Bytes(), &ids); err != nil {
		t.Fatal(err)
	}
	if ids.TraceID != r.TraceID().String() || ids.SpanID != r.SpanID().String() {
		t.Errorf("slog has %+v, the record %v and %v", ids, r.TraceID(), r.SpanID())
	}
	written, _ := readFile(t, file)
	inFile := make(map[string]fileSpan)
	for _, s := range written {
		inFile[s.Name] = s
	}
	if region := inFile["load"]; region.TraceID != ids.TraceID || region.SpanID != ids.SpanID {
		t.Errorf("the file has %+v, the lines %+v", region, ids)
	}
	if failure := inFile["allocate"]; failure.TraceID != ids.TraceID || failure.ParentSpanID != ids.SpanID {
		t.Errorf("the failure's span is %+v, want one below the region's", failure)
	}
}
