package main

import (
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/internal/jaegertest"
)

// TestJaeger finds the trace of a run in a real Jaeger, by its service name.
func TestJaeger(t *testing.T) {
	dir := writeCorpus(t)
	j := jaegertest.Start(t)
	out := t.TempDir()
	r := runJSON(t, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + j.HTTPEndpoint()}, "-dir", dir, "-leak", "-out", out)
	if r.Trace.Warning != "" || r.Trace.File != filepath.Join(out, traceName) || r.Trace.Endpoint != j.HTTPEndpoint() {
		t.Errorf("the trace is said to be in %+v", r.Trace)
	}
	wantFiles(t, out, heapName, logName, traceName)
	wantProfile(t, r)
	wantTraceFile(t, r)
	j.Trace(r.Trace.ID, 1) // waits until it is there
	found := j.FindTraces(service)
	if len(found) != 1 {
		t.Fatalf("%d traces of service %s, want 1", len(found), service)
	}
	wantTrace(t, j.Trace(r.Trace.ID, len(found[0])), r)
	wantLog(t, r)

	settings := []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=" + j.HTTPEndpoint() + "/v1/traces", "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", "GOMAXPROCS=2"}
	text := runProgram(t, settings, "-dir", dir) // in two parts
	if id := regexp.MustCompile(`(?m)^trace: http://127\.0\.0\.1:16686/trace/([0-9a-f]{32}),.*indexer`).FindStringSubmatch(text.stdout); text.code != 0 || id == nil {
		t.Errorf("exit code %d; no trace id in\n%s", text.code, text.stdout)
	} else {
		j.Trace(id[1], 7)
	}
}

// TestBadEndpoint: that is a warning, and the trace is in the file.
func TestBadEndpoint(t *testing.T) {
	dir := writeCorpus(t)
	r := runJSON(t, []string{"OTEL_EXPORTER_OTLP_ENDPOINT=localhost:4318"}, "-dir", dir)
	if !strings.Contains(r.Trace.Warning, `OTEL_EXPORTER_OTLP_ENDPOINT="localhost:4318"`) {
		t.Errorf("warning is %q", r.Trace.Warning)
	}
	wantTraceFile(t, r)
}

func wantFiles(t *testing.T, dir string, names ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if err != nil || !slices.Equal(got, names) {
		t.Errorf("%s has %q (%v), want %q", dir, got, err, names)
	}
}

// TestJaegerDown: the program's work is done all the same.
func TestJaegerDown(t *testing.T) {
	t.Parallel() // it waits most of the time
	dir := writeCorpus(t)
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close() // until then it accepts connections and never answers
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	for name, addr := range map[string]string{"silent": silent.Addr().String(), "gone": gone.Addr().String()} {
		t.Run(name, func(t *testing.T) {
			settings := []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://" + addr}
			r := runJSON(t, settings, "-dir", dir)
			wantNoLeak(t, r)
			if !strings.Contains(r.Trace.Warning, "did not reach http://"+addr) || !strings.Contains(r.Trace.Warning, r.Trace.File) || r.Trace.Endpoint != "" {
				t.Errorf("the trace is said to be in %+v", r.Trace)
			}
			wantTraceFile(t, r)
			text := runProgram(t, settings, "-dir", dir)
			if text.code != 0 || strings.Count(text.stderr, "indexer: warning: ") != 1 || !strings.HasSuffix(text.stderr, "\n") {
				t.Errorf("exit code %d, stderr %q", text.code, text.stderr)
			}
			if warning := text.stderr[strings.Index(text.stderr, "indexer: warning: "):]; strings.Count(warning, "\n") != 1 {
				t.Errorf("the warning has more than one line: %q", warning)
			}
			if strings.Contains(text.stdout, ":16686/") || !strings.Contains(text.stdout, traceName+" opens in Jaeger") {
				t.Errorf("the trace is not said to be in the file alone:\n%s", text.stdout)
			}
		})
	}
}
