package otlp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace/exporters/otlpfile"
)

// The shape of a line, as the OTLP specification's JSON encoding has it. A
// field that is not here makes readFile fail.
type (
	fileLine struct {
		ResourceSpans []struct {
			Resource   struct{ Attributes []fileAttribute }
			ScopeSpans []struct {
				Scope     struct{ Name string }
				Spans     []fileSpan
				SchemaURL string `json:"schemaUrl"`
			}
			SchemaURL string `json:"schemaUrl"`
		}
	}
	fileSpan struct {
		TraceID           string `json:"traceId"`
		SpanID            string `json:"spanId"`
		ParentSpanID      string `json:"parentSpanId"`
		Name              string
		Flags             uint32
		Kind              int    // a number, not a name
		StartTimeUnixNano string // 64-bit numbers are strings
		EndTimeUnixNano   string
		TraceState        string
		Attributes        []fileAttribute
		Events            []struct {
			Name         string
			TimeUnixNano string
			Attributes   []fileAttribute
		}
		Links []struct {
			TraceID    string `json:"traceId"`
			SpanID     string `json:"spanId"`
			TraceState string
			Attributes []fileAttribute
			Flags      uint32
		}
		Status struct {
			Code    int
			Message string
		}
	}
	fileAttribute struct {
		Key   string
		Value struct {
			StringValue *string
			IntValue    *string
			BoolValue   *bool
			DoubleValue *float64
			ArrayValue  *struct{ Values []json.RawMessage }
		}
	}
)

var hexID = regexp.MustCompile(`^[0-9a-f]+$`) // lower case, as in logs and W3C Trace Context

// readFile decodes a file strictly: complete lines, one object on each, no
// unknown field, hex ids of the right length.
func readFile(t *testing.T, path string) (spans []fileSpan, resource map[string]string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if len(data) > 0 && data[len(data)-1] != '\n' {
		t.Fatalf("the file does not end with a whole line: …%q", data[max(0, len(data)-80):])
	}
	lines := bufio.NewScanner(bytes.NewReader(data))
	lines.Buffer(nil, 64<<20)
	for n := 1; lines.Scan(); n++ {
		dec := json.NewDecoder(bytes.NewReader(lines.Bytes()))
		dec.DisallowUnknownFields()
		var line fileLine
		if err := dec.Decode(&line); err != nil {
			t.Fatalf("line %d: %v\n%.300s", n, err, lines.Bytes())
		}
		if _, err := dec.Token(); err != io.EOF {
			t.Fatalf("line %d holds more than one object", n)
		}
		if !bytes.HasPrefix(lines.Bytes(), []byte(`{"resourceSpans":[`)) || len(line.ResourceSpans) == 0 {
			t.Fatalf("line %d does not begin with resourceSpans: %.80s", n, lines.Bytes())
		}
		for _, rs := range line.ResourceSpans {
			resource = map[string]string{}
			for _, a := range rs.Resource.Attributes {
				resource[a.Key] = *a.Value.StringValue
			}
			for _, ss := range rs.ScopeSpans {
				for _, s := range ss.Spans {
					if len(s.TraceID) != 32 || !hexID.MatchString(s.TraceID) || len(s.SpanID) != 16 || !hexID.MatchString(s.SpanID) {
						t.Fatalf("line %d: ids %q and %q are not hex of 16 and 8 bytes", n, s.TraceID, s.SpanID)
					}
					if s.ParentSpanID != "" && (len(s.ParentSpanID) != 16 || !hexID.MatchString(s.ParentSpanID)) {
						t.Fatalf("line %d: parent id %q is not hex of 8 bytes", n, s.ParentSpanID)
					}
					spans = append(spans, s)
				}
			}
		}
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return spans, resource
}

// runFile writes two nested spans through a new provider and returns them.
func runFile(t *testing.T, path string) (outer, inner trace.Span) {
	t.Helper()
	p := newTestProvider(t, Options{File: path, ServiceName: "svc"})
	tr := p.Tracer("scope")
	ctx, outer := tr.Start(t.Context(), "outer", trace.WithAttributes(
		attribute.Int64("bytes", 1<<62+1), attribute.String("text", "line\nbreak \"quoted\" \x7f €"),
		attribute.Bool("yes", true), attribute.Float64("half", 0.5)))
	_, inner = tr.Start(ctx, "inner")
	inner.SetStatus(codes.Error, "out of memory")
	inner.End()
	outer.End()
	if err := p.Shutdown(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	wantStats(t, p, Stats{Accepted: 2, Exported: 2})
	return outer, inner
}

func checkFile(t *testing.T, path string, outer, inner trace.Span) {
	t.Helper()
	spans, resource := readFile(t, path)
	if len(spans) != 2 || spans[0].Name != "inner" || spans[1].Name != "outer" {
		t.Fatalf("the file holds %+v, want inner and outer", spans)
	}
	i, o := spans[0], spans[1]
	for _, x := range []struct{ what, got, want string }{
		{"trace id of outer", o.TraceID, outer.SpanContext().TraceID().String()},
		{"trace id of inner", i.TraceID, outer.SpanContext().TraceID().String()},
		{"span id of outer", o.SpanID, outer.SpanContext().SpanID().String()},
		{"span id of inner", i.SpanID, inner.SpanContext().SpanID().String()},
		{"parent of inner", i.ParentSpanID, outer.SpanContext().SpanID().String()},
		{"parent of outer", o.ParentSpanID, ""},
		{"service.name", resource["service.name"], "svc"},
		{"status message", i.Status.Message, "out of memory"},
	} {
		if x.got != x.want {
			t.Errorf("%s is %q, want %q", x.what, x.got, x.want)
		}
	}
	if i.Status.Code != 2 || o.Status.Code != 0 {
		t.Errorf("status codes are %d and %d, want 2 and 0", i.Status.Code, o.Status.Code)
	}
	if o.Kind != 1 {
		t.Errorf("kind is %d, want 1 for internal", o.Kind)
	}
	got := fmt.Sprint(*o.Attributes[0].Value.IntValue, " ", *o.Attributes[1].Value.StringValue, " ",
		*o.Attributes[2].Value.BoolValue, " ", *o.Attributes[3].Value.DoubleValue)
	if want := "4611686018427387905 line\nbreak \"quoted\" \x7f € true 0.5"; got != want {
		t.Errorf("attributes are %q, want %q", got, want)
	}
	start, err1 := strconv.ParseUint(o.StartTimeUnixNano, 10, 64)
	end, err2 := strconv.ParseUint(o.EndTimeUnixNano, 10, 64)
	if err := errors.Join(err1, err2); err != nil || start == 0 || end < start {
		t.Errorf("times are %q and %q (%v)", o.StartTimeUnixNano, o.EndTimeUnixNano, err)
	}
}

func TestFile(t *testing.T) {
	before := runtime.NumGoroutine()
	path := filepath.Join(t.TempDir(), "trace.json")
	outer, inner := runFile(t, path)
	checkFile(t, path, outer, inner)
	outer, inner = runFile(t, path) // an existing file is replaced
	checkFile(t, path, outer, inner)
	wantGoroutines(t, before)
}

func TestFileIgnoresExporterEnvironment(t *testing.T) {
	dir := t.TempDir()
	tls := httptest.NewTLSServer(http.NotFoundHandler())
	defer tls.Close()
	for name, value := range map[string]string{
		"ENDPOINT":           "http://127.0.0.1:1/elsewhere",
		"TRACES_ENDPOINT":    "https://127.0.0.1:1",
		"PROTOCOL":           "grpc",
		"COMPRESSION":        "gzip",
		"TRACES_COMPRESSION": "gzip",
		"HEADERS":            "authorization=x,bad%20name=y",
		"TIMEOUT":            "1",
		"INSECURE":           "true",
		"CERTIFICATE":        writeCertificate(t, tls),
	} {
		t.Setenv("OTEL_EXPORTER_OTLP_"+name, value)
	}
	path := filepath.Join(dir, "trace.json")
	outer, inner := runFile(t, path)
	checkFile(t, path, outer, inner)
}

func TestFileManyBatches(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.json")
	p := newTestProvider(t, Options{File: path})
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 10 {
				emit(p, 250)
				if err := p.ForceFlush(within(t, time.Minute)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if err := p.Shutdown(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	wantStats(t, p, Stats{Accepted: 10000, Exported: 10000})
	spans, _ := readFile(t, path)
	distinct := map[string]bool{}
	for _, s := range spans {
		distinct[s.SpanID] = true
	}
	if len(spans) != 10000 || len(distinct) != 10000 {
		t.Errorf("the file holds %d spans, %d of them distinct, want 10000", len(spans), len(distinct))
	}
}

func TestFileOfNoSpans(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.json")
	p := newTestProvider(t, Options{File: path})
	if err := p.Shutdown(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if spans, _ := readFile(t, path); len(spans) != 0 {
		t.Errorf("the file holds %d spans, want none", len(spans))
	}
}

// After another program has copied and truncated the file, the next line is the
// first.
func TestFileSurvivesTruncation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.json")
	p := newTestProvider(t, Options{File: path})
	for _, n := range []int{10, 3, 1000, 1} {
		if err := os.Truncate(path, 0); err != nil {
			t.Fatal(err)
		}
		emit(p, n)
		if err := p.ForceFlush(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		if spans, _ := readFile(t, path); len(spans) != n {
			t.Fatalf("the file holds %d spans after it was truncated, want %d", len(spans), n)
		}
	}
}

// At whatever moment it is truncated, the file holds whole lines.
func TestFileTruncatedWhileItIsWritten(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.json")
	p := newTestProvider(t, Options{File: path})
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
		emit(p, 5)
		if err := p.ForceFlush(within(t, time.Minute)); err != nil {
			t.Error(err)
		}
	}
	stop.Store(true)
	wg.Wait()
	emit(p, 1)
	if err := p.Shutdown(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	wantStats(t, p, Stats{Accepted: 1001, Exported: 1001})
	if spans, _ := readFile(t, path); len(spans) == 0 {
		t.Error("the file holds no span, want the last one at least")
	}
}

// A file that was renamed is still the provider's.
func TestFileRenamed(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows renames no open file")
	}
	path := filepath.Join(t.TempDir(), "trace.json")
	p := newTestProvider(t, Options{File: path})
	emit(p, 2)
	if err := p.ForceFlush(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path, path+".1"); err != nil {
		t.Fatal(err)
	}
	emit(p, 3)
	if err := p.Shutdown(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	if spans, _ := readFile(t, path+".1"); len(spans) != 5 {
		t.Errorf("the renamed file holds %d spans, want 5", len(spans))
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("a file was made under the old name: %v", err)
	}
}

// Rotated files have all spans, and those that were deleted are counted.
func TestFileRotation(t *testing.T) {
	path := filepath.Join(t.TempDir(), "trace.json")
	p := newTestProvider(t, Options{File: path, Rotation: otlpfile.Rotation{MaxFileBytes: 20_000, MaxTotalBytes: 60_000}})
	written := 0
	for range 30 {
		emit(p, 20)
		if err := p.ForceFlush(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		written += 20
	}
	if err := p.Shutdown(within(t, time.Minute)); err != nil {
		t.Fatal(err)
	}
	files, err := otlpfile.Files(path)
	if err != nil {
		t.Fatal(err)
	}
	left := 0
	for _, f := range files {
		spans, _ := readFile(t, f)
		left += len(spans)
	}
	s := p.FileStats()
	if s.Spans != int64(written) || s.Lost != 0 || s.DeletedFiles == 0 || s.Files != s.DeletedFiles+int64(len(files)) || left == 0 || left >= written {
		t.Errorf("%d spans in %d files, and the counts are %+v", left, len(files), s)
	}
	wantStats(t, p, Stats{Accepted: int64(written), Exported: int64(written)})
	if s := newTestProvider(t, Options{}).FileStats(); s != (otlpfile.Stats{}) {
		t.Errorf("without a file: %+v", s)
	}
}

// Ids look as they do in logs, and nothing else that looks like one changes.
func TestFileHasLowerCaseIDs(t *testing.T) {
	const text = `"traceId":"ABCDEF","spanId":"ABCDEF" parentSpanId`
	path := filepath.Join(t.TempDir(), "trace.json")
	p := newTestProvider(t, Options{File: path})
	for range 100 {
		ctx, outer := p.Tracer(text).Start(t.Context(), text)
		_, inner := p.Tracer(text).Start(ctx, text, trace.WithLinks(trace.LinkFromContext(ctx, attribute.String("traceId", text))))
		inner.End()
		outer.End()
		if err := p.ForceFlush(within(t, time.Minute)); err != nil {
			t.Fatal(err)
		}
		spans, _ := readFile(t, path) // knows lower case only
		i, o := spans[len(spans)-2], spans[len(spans)-1]
		if i.Name != text || o.TraceID != outer.SpanContext().TraceID().String() || i.ParentSpanID != o.SpanID || len(i.Links) != 1 ||
			i.Links[0].TraceID != o.TraceID || i.Links[0].SpanID != o.SpanID || *i.Links[0].Attributes[0].Value.StringValue != text {
			t.Fatalf("the spans are %+v and %+v", i, o)
		}
	}
}

// A faultyFile is a full disk.
type faultyFile struct{ lineWriter }

var errFull, errClose = errors.New("no space left on device"), errors.New("lost on close")

func (faultyFile) ExportSpans(context.Context, []sdktrace.ReadOnlySpan) error { return errFull }

func (f faultyFile) Close() error { return errors.Join(f.lineWriter.Close(), errClose) }

// newFileProvider returns a provider that writes to f.
func newFileProvider(t *testing.T, f lineWriter) *Provider {
	t.Helper()
	s, err := newSettings(t.Context(), &Options{})
	if err != nil {
		t.Fatal(err)
	}
	return startFile(f, 100, time.Minute, "trace.json", s)
}

func TestFileErrorsSurfaceAtShutdown(t *testing.T) {
	f, err := openFile(filepath.Join(t.TempDir(), "trace.json"), otlpfile.Rotation{})
	if err != nil {
		t.Fatal(err)
	}
	p := newFileProvider(t, faultyFile{f})
	emit(p, 5)
	err = p.Shutdown(within(t, time.Minute))
	if !errors.Is(err, errFull) || !errors.Is(err, errClose) || !strings.Contains(err.Error(), "5 of 5 spans did not reach trace.json") {
		t.Errorf("Shutdown returned %v, want the lost spans, the full disk and the failed close", err)
	}
	wantStats(t, p, Stats{Accepted: 5, Failed: 5})
}

func TestFileThatCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("keep me"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, x := range []struct{ path, want string }{
		{filepath.Join(dir, "missing", "trace.json"), "a folder that exists"},
		{filepath.Join(file, "trace.json"), "a folder that exists"},
		{dir, "not a regular file"},
	} {
		p, err := New(t.Context(), Options{File: x.path})
		if err == nil {
			p.Shutdown(t.Context())
			t.Errorf("New took the path %s", x.path)
			continue
		}
		for _, want := range []string{"otlp: New: Options.File=", strconv.Quote(x.path), x.want} {
			if strings.Count(err.Error(), want) != 1 {
				t.Errorf("the error does not say %q once: %v", want, err)
			}
		}
	}

	// An option that is wrong elsewhere leaves an existing file alone.
	t.Setenv("OTEL_RESOURCE_ATTRIBUTES", "nonsense")
	if _, err := New(t.Context(), Options{File: file}); err == nil {
		t.Error("New took OTEL_RESOURCE_ATTRIBUTES=nonsense")
	}
	if got, _ := os.ReadFile(file); string(got) != "keep me" {
		t.Errorf("a failed New left %q in an existing file", got)
	}
}
