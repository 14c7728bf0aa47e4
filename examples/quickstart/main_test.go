package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/pprof/profile"

	"github.com/alloctrace/alloctrace/internal/jaegertest"
)

// The tests run the program as a process of its own: the test binary, told by this variable to be the program.
const beProgram = "QUICKSTART_TEST_BE_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(beProgram) != "" {
		main()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A result is what the program did, in a folder of its own.
type result struct {
	dir, stdout, stderr string
	code                int
}

// runProgram runs the program with the arguments. Settings of OpenTelemetry around the test are left out.
func runProgram(t *testing.T, setting string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute) // a hang fails, and does not hang the tests
	defer cancel()
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Dir = t.TempDir()
	cmd.Env = append(jaegertest.Environ(), beProgram+"=1", setting)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err, exit := cmd.Run(), (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.Dir, stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

func (r result) read(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(r.dir, name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// counters are what the program prints of one Proxy.
type counters struct {
	live                                                float64 // bytes, to a hundredth of their unit
	blocks, allocations, reallocations, frees, failures int64
}

// counters finds the line of that name.
func (r result) counters(t *testing.T, name string) (c counters) {
	t.Helper()
	m := regexp.MustCompile(`(?m)^` + name + ` +live ([\d.]+) (B|KiB|MiB|GiB) in (\d+) blocks?, peak .*; (\d+) allocations?, (\d+) reallocations?, (\d+) frees?, (\d+) failures?; `).
		FindStringSubmatch(r.stdout)
	if m == nil {
		t.Fatalf("no counters of %s in\n%s", name, r.stdout)
	}
	var err error
	if c.live, err = strconv.ParseFloat(m[1], 64); err != nil {
		t.Fatal(err)
	}
	c.live *= map[string]float64{"B": 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}[m[2]]
	for i, n := range []*int64{&c.blocks, &c.allocations, &c.reallocations, &c.frees, &c.failures} {
		if *n, err = strconv.ParseInt(m[3+i], 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	return c
}

// span returns the only span of the trace file.
func (r result) span(t *testing.T) jaegertest.Span {
	t.Helper()
	line := r.read(t, "quickstart.trace.json")
	traces, err := jaegertest.Decode(line)
	if err != nil || len(traces) != 1 || len(traces[0]) != 1 {
		t.Fatalf("%d traces (%v), want one with one span: %s", len(traces), err, line)
	}
	return traces[0][0]
}

// wantCounters checks that the parts are the whole, that the span says what the counters do, and that nothing is live.
func wantCounters(t *testing.T, r result) {
	t.Helper()
	whole, text, words, end := r.counters(t, "whole"), r.counters(t, "text"), r.counters(t, "words"), r.counters(t, "end")
	sum := counters{
		whole.live, text.blocks + words.blocks, text.allocations + words.allocations,
		text.reallocations + words.reallocations, text.frees + words.frees, text.failures + words.failures,
	}
	if sum != whole || text.blocks == 0 || words.blocks == 0 {
		t.Errorf("the parts are %+v in all, the whole is %+v", sum, whole)
	}
	if off := text.live + words.live - whole.live; off < -20<<10 || off > 20<<10 { // the unit is MiB at most
		t.Errorf("the parts hold %.0f bytes more than the whole", off)
	}
	if want := (counters{0, 0, whole.allocations, whole.reallocations, whole.allocations, 0}); end != want {
		t.Errorf("at the end %+v, want %+v", end, want)
	}
	span := r.span(t)
	if span.Name != "count" || span.ParentID != "" || span.StatusCode == 2 || span.Resource["service.name"] != "quickstart" {
		t.Errorf("the span is %+v", span)
	}
	for key, want := range map[string]int64{
		"allocator.allocations":   end.allocations,
		"allocator.reallocations": end.reallocations,
		"allocator.frees":         end.frees,
		"allocator.failures":      0,
		"allocator.memory.net":    0,
	} {
		if got := span.Attributes[key]; got != want {
			t.Errorf("the span's %s is %v, the counters say %d", key, got, want)
		}
	}
	allocated, _ := span.Attributes["allocator.memory.allocated"].(int64)
	peak, _ := span.Attributes["allocator.memory.peak"].(int64)
	if span.Attributes["allocator.memory.freed"] != allocated || float64(peak) < whole.live-20<<10 || peak > allocated {
		t.Errorf("%v bytes were live, the span has %v", whole.live, span.Attributes)
	}
}

// wantLog checks that the log has a few of the events, of both parts and with the span.
func wantLog(t *testing.T, r result) {
	t.Helper()
	span, end := r.span(t), r.counters(t, "end")
	children := make(map[string]bool)
	for line := range strings.Lines(r.stderr) {
		var entry struct {
			Level, Child, Message string
			TraceID               string `json:"trace_id"`
			SpanID                string `json:"span_id"`
		}
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if entry.Level != "debug" || entry.TraceID != span.TraceID || entry.SpanID != span.SpanID {
			t.Errorf("the log has %s", line)
		}
		children[entry.Child] = true
	}
	events := end.allocations + 2*end.reallocations + end.frees
	if n := int64(strings.Count(r.stderr, "\n")); n > events/16+4 || !children["text"] || !children["words"] || len(children) != 2 {
		t.Errorf("%d lines of log for %d events, of %v", n, events, children)
	}
}

func goroot(t *testing.T) string {
	t.Helper()
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if errors.Is(err, exec.ErrNotFound) && os.Getenv("ALLOCTRACE_REQUIRE_ALL") != "1" {
		t.Skipf("put the go command on PATH: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

// TestStandardLibrary is the README's first command.
func TestStandardLibrary(t *testing.T) {
	root := goroot(t)
	r := runProgram(t, "GOROOT="+root) // of which a test binary that was built with -trimpath does not know
	if r.code != 0 {
		t.Fatalf("exit code %d, stderr %s", r.code, r.stderr)
	}
	wantCounters(t, r)
	wantLog(t, r)
	if c := r.counters(t, "text"); c.live < 50<<20 {
		t.Errorf("%.0f bytes of text: that is not the standard library", c.live)
	}
	if _, next, ok := strings.Cut(r.stdout, "\nnext:\n"); !ok || strings.Count(next, "\n") > 5 ||
		!strings.Contains(next, "go tool pprof -top quickstart.pprof") || !strings.Contains(next, "Search, Upload, quickstart.trace.json") {
		t.Errorf("what to do next is not said in\n%s", r.stdout)
	}

	p, err := profile.ParseData(r.read(t, "quickstart.pprof"))
	if err != nil {
		t.Fatal(err)
	}
	inUse := make(map[string]float64)
	for _, s := range p.Sample {
		inUse[s.Label["allocator"][0]] += float64(s.Value[3])
	}
	for _, part := range []string{"text", "words"} { // large blocks: each is sampled, but for one in e^8
		if live := r.counters(t, part).live; inUse[part] < 0.75*live || inUse[part] > 1.25*live {
			t.Errorf("the profile has %.0f bytes of %s, the counters %.0f", inUse[part], part, live)
		}
	}
	cmd := exec.Command("go", "tool", "pprof", "-top", "quickstart.pprof")
	cmd.Dir = r.dir
	top, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(top), "Type: inuse_space\n") || !regexp.MustCompile(`(?m) 100%  \S+/quickstart\.count$|100%  main\.count$`).Match(top) {
		t.Errorf("go tool pprof -top: %v\n%s", err, top)
	}
}

// TestArguments: files by any name, and of folders what ends in .go.
func TestArguments(t *testing.T) {
	dir := t.TempDir()
	sources := map[string]string{
		"a.go":      "package a // Größe größe\nvar x_y, größe = 1, x2y",
		"sub/b.go":  "package b",
		"sub/c.txt": "unread",
		"notes":     "notes of a package",
	}
	for name, text := range sources {
		path := filepath.Join(dir, "tree", name)
		if name == "notes" {
			path = filepath.Join(dir, name)
		}
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text+"\n"), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	want := make(map[string]bool)
	for _, name := range []string{"a.go", "sub/b.go", "notes"} {
		for _, word := range strings.FieldsFunc(sources[name], func(r rune) bool { return !unicode.IsLetter(r) }) {
			want[word] = true
		}
	}
	r := runProgram(t, "", filepath.Join(dir, "tree"), filepath.Join(dir, "notes"))
	if line := strconv.Itoa(len(want)) + " different words\n"; r.code != 0 || !strings.HasPrefix(r.stdout, line) {
		t.Fatalf("exit code %d, stderr %s, stdout\n%s, want %s", r.code, r.stderr, r.stdout, line)
	}
	wantCounters(t, r)
	wantLog(t, r)

	// What cannot be read is an error, and no block is live then either.
	missing := filepath.Join(dir, "missing.go")
	r = runProgram(t, "", filepath.Join(dir, "tree"), missing)
	_, message, _ := strings.Cut("\n"+r.stderr, "\nquickstart: ")
	if r.code != 1 || strings.Count(message, missing) != 1 || strings.Count(message, "\n") != 1 || strings.Contains(r.stdout, "next:") {
		t.Errorf("exit code %d, stdout %s, stderr %s", r.code, r.stdout, r.stderr)
	}
	if end := r.counters(t, "end"); end.blocks != 0 || end.allocations == 0 || end.allocations != end.frees {
		t.Errorf("at the end %+v", end)
	}
}

// TestCollector: the trace is sent as it is in the file; a collector that is gone is an error, and the file is there.
func TestCollector(t *testing.T) {
	source := filepath.Join(t.TempDir(), "a.go")
	if err := os.WriteFile(source, []byte("package a\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	var path string
	var posted []byte
	s := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		path = r.URL.Path
		posted, _ = io.ReadAll(r.Body)
	}))
	r := runProgram(t, "OTEL_EXPORTER_OTLP_ENDPOINT="+s.URL, source)
	s.Close()
	if r.code != 0 || path != "/v1/traces" || !bytes.Equal(posted, r.read(t, "quickstart.trace.json")) {
		t.Errorf("exit code %d, stderr %s; sent to %s: %s", r.code, r.stderr, path, posted)
	}
	r = runProgram(t, "OTEL_EXPORTER_OTLP_ENDPOINT="+s.URL, source)
	if r.code != 1 || !strings.Contains(r.stderr, "did not reach "+s.URL) || !strings.Contains(r.stdout, "next:") {
		t.Errorf("exit code %d, stdout %s, stderr %s", r.code, r.stdout, r.stderr)
	}
	wantCounters(t, r)
}

// TestJaeger finds the trace in a real Jaeger, under the name that the program says.
func TestJaeger(t *testing.T) {
	source := filepath.Join(t.TempDir(), "a.go")
	if err := os.WriteFile(source, []byte("package a\n"), 0o666); err != nil {
		t.Fatal(err)
	}
	j := jaegertest.Start(t)
	r := runProgram(t, "OTEL_EXPORTER_OTLP_ENDPOINT="+j.HTTPEndpoint(), source)
	if r.code != 0 {
		t.Fatalf("exit code %d, stderr %s", r.code, r.stderr)
	}
	want := r.span(t)
	if got := j.Trace(want.TraceID, 1); len(got) != 1 || got[0].Name != "count" || got[0].Attributes["allocator.allocations"] != want.Attributes["allocator.allocations"] {
		t.Errorf("Jaeger has %+v, want %+v", got, want)
	}
	if found := j.FindTraces("quickstart"); len(found) != 1 {
		t.Errorf("%d traces of service quickstart, want 1", len(found))
	}
}

// TestShort: what is to be copied must be short enough to be read.
func TestShort(t *testing.T) {
	data, err := os.ReadFile("main.go")
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(data, []byte("\n")); n > 100 {
		t.Errorf("main.go has %d lines, want 100 at most", n)
	}
}
