package otlpfile

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdkresource "go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
)

// spans returns n spans.
func spans(n int) []sdktrace.ReadOnlySpan {
	out := make(tracetest.SpanStubs, n)
	for i := range out {
		out[i].Name = "span " + strconv.Itoa(i)
	}
	return out.Snapshots()
}

// countSpans decodes the lines of a file, all of which must be whole, and returns how many lines and spans there are.
func countSpans(t *testing.T, data []byte) (lines, spans int) {
	t.Helper()
	for line := range bytes.Lines(data) {
		var r request
		if err := json.Unmarshal(line, &r); err != nil || !bytes.HasSuffix(line, []byte("]}\n")) || !bytes.HasPrefix(line, []byte(`{"resourceSpans":[`)) {
			t.Fatalf("%v: not a whole line: %.300q", err, line)
		}
		lines++
		for _, rs := range r.ResourceSpans {
			for _, ss := range rs.ScopeSpans {
				spans += len(ss.Spans)
			}
		}
	}
	return lines, spans
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func createIn(t *testing.T) (*Exporter, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "trace.json")
	e, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.Close() })
	return e, path
}

func export(t *testing.T, e *Exporter, n int) {
	t.Helper()
	if err := e.ExportSpans(t.Context(), spans(n)); err != nil {
		t.Error(err)
	}
}

// A faultyFile is a disk with room for so many bytes.
type faultyFile struct {
	appendFile
	room        int
	truncateErr error
	closeErr    error
	writes      int

	beforeStat func()
}

var errFull = errors.New("no space left on device")

func (f *faultyFile) Write(b []byte) (int, error) {
	f.writes++
	n := min(len(b), f.room)
	f.room -= n
	n, err := f.appendFile.Write(b[:n])
	if err == nil && n < len(b) {
		err = errFull
	}
	return n, err
}

func (f *faultyFile) Stat() (os.FileInfo, error) {
	if f.beforeStat != nil {
		f.beforeStat()
	}
	return f.appendFile.Stat()
}

func (f *faultyFile) Truncate(size int64) error {
	if f.truncateErr != nil {
		return f.truncateErr
	}
	return f.appendFile.Truncate(size)
}

func (f *faultyFile) Close() error { return errors.Join(f.appendFile.Close(), f.closeErr) }

func newFaultyFile(t *testing.T, room int) (*faultyFile, string) {
	path := filepath.Join(t.TempDir(), "trace.json")
	f, err := create(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.File.Close() })
	return &faultyFile{appendFile: f, room: room}, path
}

func TestFileOnAFullDisk(t *testing.T) {
	f, path := newFaultyFile(t, 25)
	e := &Exporter{out: f}
	if err := e.write([]byte("first line\n")); err != nil {
		t.Fatal(err)
	}
	if err := e.write([]byte("a line that does not fit any more\n")); !errors.Is(err, errFull) {
		t.Fatalf("a line too long gave %v, want %v", err, errFull)
	}
	f.room = 100 // someone made room
	if err := e.write([]byte("second line\n")); err != nil {
		t.Fatal(err)
	}
	if f.writes != 3 {
		t.Errorf("%d writes for 3 lines: a line is not written with one call", f.writes)
	}
	if got, _ := os.ReadFile(path); string(got) != "first line\nsecond line\n" {
		t.Errorf("the file holds %q, want two whole lines", got)
	}

	f.room = 5
	f.beforeStat = func() { os.Truncate(path, 0) } // by another program
	if err := e.write([]byte("a line that does not fit\n")); !errors.Is(err, errFull) {
		t.Fatalf("a line too long gave %v, want %v", err, errFull)
	}
	f.room, f.beforeStat = 100, nil
	for _, line := range []string{"first line", "second line"} {
		if err := e.write([]byte(line + "\n")); err != nil {
			t.Fatal(err)
		}
	}
	if got, _ := os.ReadFile(path); string(got) != "first line\nsecond line\n" {
		t.Errorf("the file holds %q, want two whole lines", got)
	}

	f.room, f.truncateErr = 3, errors.New("read-only now")
	if err := e.write([]byte("third line\n")); !errors.Is(err, errFull) || !errors.Is(err, f.truncateErr) {
		t.Errorf("a half line that stays gave %v, want both reasons", err)
	}
	f.room = 100
	if err := e.write([]byte("fourth line\n")); !errors.Is(err, errFull) {
		t.Errorf("writing went on after a half line: %v", err)
	}
	if got, _ := os.ReadFile(path); string(got) != "first line\nsecond line\nthi" {
		t.Errorf("the file holds %q, want the half line last", got)
	}
}

// What the SDK only prints, Err and Shutdown say: how many spans are not in the file, and why.
func TestErrorsAreKept(t *testing.T) {
	f, path := newFaultyFile(t, 1000)
	f.closeErr = errors.New("lost on close")
	e := &Exporter{out: f}
	if err := e.Err(); err != nil {
		t.Errorf("Err returned %v before the first span", err)
	}
	export(t, e, 2)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	for _, x := range []struct {
		ctx  context.Context
		n    int
		want error
	}{{ctx, 3, context.Canceled}, {t.Context(), 100, errFull}} {
		if err := e.ExportSpans(x.ctx, spans(x.n)); !errors.Is(err, x.want) || !strings.HasPrefix(err.Error(), "otlpfile: ExportSpans: ") {
			t.Errorf("ExportSpans of %d spans returned %v, want %v", x.n, err, x.want)
		}
	}
	if err := e.Err(); !errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), ": 103 (") {
		t.Errorf("Err returned %v, want 103 spans and the first reason", err)
	}
	err := e.Shutdown(t.Context())
	if !errors.Is(err, context.Canceled) || !errors.Is(err, f.closeErr) || !strings.Contains(err.Error(), ": 103 (") {
		t.Errorf("Shutdown returned %v, want 103 spans, the first reason and that of closing", err)
	}
	if err := e.ExportSpans(t.Context(), spans(1)); !errors.Is(err, errClosed) {
		t.Errorf("ExportSpans after Shutdown returned %v", err)
	}
	if err := e.ExportSpans(t.Context(), nil); err != nil {
		t.Errorf("no span was not written: %v", err)
	}
	if err := e.Shutdown(t.Context()); err == nil || errors.Is(err, f.closeErr) || !strings.Contains(err.Error(), ": 104 (") {
		t.Errorf("the second Shutdown returned %v, want 104 spans", err)
	}
	if _, n := countSpans(t, readFile(t, path)); n != 2 {
		t.Errorf("the file has %d spans, want the first 2", n)
	}
}

// A stream takes nothing back, so that it ends with a half line.
func TestBrokenStream(t *testing.T) {
	f, path := newFaultyFile(t, 100)
	e := New(struct{ *faultyFile }{f})
	for range 2 {
		if err := e.ExportSpans(t.Context(), spans(1)); !errors.Is(err, errFull) || !errors.Is(err, errStream) {
			t.Errorf("ExportSpans returned %v, want both reasons", err)
		}
		f.room = 1 << 20
	}
	if got := readFile(t, path); len(got) != 100 {
		t.Errorf("the stream holds %q, want the half line last", got)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if _, err := f.Stat(); err != nil {
		t.Errorf("the stream was closed: %v", err)
	}
}

func TestCreateErrors(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ path, want string }{
		{"", "such as"},
		{filepath.Join(dir, "missing", "trace.json"), "a folder that exists"},
		{filepath.Join(file, "trace.json"), "a folder that exists"},
		{dir, "not a regular file"},
	} {
		e, err := Create(x.path)
		if err == nil {
			e.Close()
			t.Errorf("Create took the path %q", x.path)
			continue
		}
		inner := errors.Unwrap(err)
		if inner == nil || fmt.Sprintf("otlpfile: Create(%q): %v", x.path, inner) != err.Error() || !strings.Contains(inner.Error(), x.want) {
			t.Errorf("Create(%q) returned %q, want the path once and %q", x.path, err, x.want)
		}
	}
}

// A second Exporter does not empty the file of the first.
func TestCreateTwice(t *testing.T) {
	if !removeWhileOpen {
		return // no such locks
	}
	e, path := createIn(t)
	export(t, e, 2)
	if _, err := Create(path); !errors.Is(err, errInUse) || !strings.Contains(err.Error(), "use CreateRotating") {
		t.Errorf("the second Create returned %v", err)
	}
	export(t, e, 1)
	if _, n := countSpans(t, readFile(t, path)); n != 3 {
		t.Errorf("the file has %d spans, want 3", n)
	}
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	again, err := Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
}

// The SDK's provider writes each span as it ends, and an old file is replaced.
func TestSyncer(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.json")
	for range 2 {
		e, err := Create(path)
		if err != nil {
			t.Fatal(err)
		}
		p := sdktrace.NewTracerProvider(sdktrace.WithSyncer(e), sdktrace.WithResource(sdkresource.NewSchemaless(attribute.String("service.name", "svc"))))
		ctx, outer := p.Tracer("scope").Start(t.Context(), "outer<&>", trace.WithAttributes(attribute.Int64("n", 1<<62+1)))
		_, inner := p.Tracer("scope").Start(ctx, "inner\n", trace.WithSpanKind(trace.SpanKindClient))
		inner.SetStatus(codes.Error, "out of memory")
		inner.End()
		if lines, n := countSpans(t, readFile(t, path)); lines != 1 || n != 1 {
			t.Errorf("%d lines and %d spans after the first has ended, want 1", lines, n)
		}
		outer.End()
		if err := p.Shutdown(t.Context()); err != nil {
			t.Error(err)
		}
		data := readFile(t, path)
		if lines, n := countSpans(t, data); lines != 2 || n != 2 {
			t.Errorf("%d lines and %d spans, want 2", lines, n)
		}
		for _, want := range []string{
			`{"key":"service.name","value":{"stringValue":"svc"}}`, `"scope":{"name":"scope"}`,
			`"traceId":"` + outer.SpanContext().TraceID().String() + `","spanId":"` + inner.SpanContext().SpanID().String() +
				`","parentSpanId":"` + outer.SpanContext().SpanID().String() + `","flags":257,"name":"inner\n","kind":3,"startTimeUnixNano":"1`,
			`"status":{"message":"out of memory","code":2}`, `"name":"outer<&>","kind":1`, `{"key":"n","value":{"intValue":"4611686018427387905"}}`,
		} {
			if !bytes.Contains(data, []byte(want)) {
				t.Errorf("%s is not in\n%s", want, data)
			}
		}
	}
}

func TestConcurrency(t *testing.T) {
	e, path := createIn(t)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 50 {
				export(t, e, 5)
				if err := e.Err(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := e.Shutdown(t.Context()); err != nil {
		t.Error(err)
	}
	if lines, n := countSpans(t, readFile(t, path)); lines != 200 || n != 1000 {
		t.Errorf("%d lines and %d spans, want 200 and 1000", lines, n)
	}
}

// At whatever moment it is truncated, the file holds whole lines.
func TestTruncatedWhileItIsWritten(t *testing.T) {
	e, path := createIn(t)
	var stop atomic.Bool
	var wg sync.WaitGroup
	wg.Go(func() {
		for !stop.Load() {
			if err := os.Truncate(path, 0); err != nil {
				t.Error(err)
				return
			}
			runtime.Gosched()
		}
	})
	for range 200 {
		export(t, e, 5)
	}
	stop.Store(true)
	wg.Wait()
	export(t, e, 1)
	if _, n := countSpans(t, readFile(t, path)); n == 0 {
		t.Error("the file holds no span, want the last one at least")
	}
}

// Lines stay below what a collector takes, and a batch is all there or not at all.
func TestLargeBatch(t *testing.T) {
	f, path := newFaultyFile(t, 1<<30)
	e := &Exporter{out: f}
	large := tracetest.SpanStub{Attributes: []attribute.KeyValue{attribute.String("text", strings.Repeat("0123456789", 1600))}}
	batch := make(tracetest.SpanStubs, 500) // 8 MB
	for i := range batch {
		batch[i] = large
	}
	if err := e.ExportSpans(t.Context(), batch.Snapshots()); err != nil {
		t.Fatal(err)
	}
	data := readFile(t, path)
	lines, n := countSpans(t, data)
	if n != 500 || lines < 4 || lines > 16 || f.writes != 1 {
		t.Errorf("%d spans in %d lines by %d writes, want 500 in 4 to 16 by 1", n, lines, f.writes)
	}
	for line := range bytes.Lines(data) {
		if len(line) > maxLine {
			t.Errorf("a line has %d bytes", len(line))
		}
	}
	f.room = maxLine * 2
	if err := e.ExportSpans(t.Context(), batch.Snapshots()); !errors.Is(err, errFull) || !strings.Contains(e.Err().Error(), ": 500 (") {
		t.Errorf("ExportSpans returned %v, Err %v", err, e.Err())
	}
	if got := readFile(t, path); !bytes.Equal(got, data) {
		t.Errorf("the file has %d bytes after a write that failed, want %d", len(got), len(data))
	}
}
