package main

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/trace/noop"

	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/internal/jaegertest"
)

// sources are files of which the answers are known.
var sources = map[string]string{
	"top.go":       "// 22 bytes of comment\n\ncode()\n",
	"a/one.go":     "package a\n\n\t// this comment is 27 bytes\r\n// short\nfunc f() {} // this is behind the code\n",
	"a/two.go":     "// this one has 24 bytes\n//\n   // and this, the longest, has 38 bytes",
	"b/three.go":   "// a zero \x00 byte and \xff a bad one\n",
	"b/four.txt":   "// of another kind of file\n",
	"b/c/empty.go": "",
}

var answers = []answer{
	{"a", 3, 27 + 24 + 38, "// and this, the longest, has 38 bytes"},
	{"b", 1, 32, "// a zero \x00 byte and \ufffd a bad one"},
	{".", 1, 22, "// 22 bytes of comment"},
}

func writeSources(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range sources {
		name = filepath.Join(dir, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(name), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// runProgram runs the program as main does, without settings of OpenTelemetry from around the test but an endpoint.
func runProgram(t *testing.T, endpoint string, o options) report {
	t.Helper()
	jaegertest.SetEndpoint(t, endpoint)
	o.out = t.TempDir()
	r, err := run(context.Background(), o)
	if err != nil || r.warning != nil {
		t.Fatal(err, r.warning)
	}
	return r
}

func TestKnownInput(t *testing.T) {
	o := options{dir: writeSources(t), size: 1 << 20, min: 20, top: 2}
	r := runProgram(t, "", o)
	if want := (input{files: 5, lines: 12, bytes: 222, top: 2}); r.input != want {
		t.Errorf("the input is %+v, want %+v", r.input, want)
	}
	if !slices.Equal(r.answers, answers) {
		t.Errorf("the answers are %+v,\nwant %+v", r.answers, answers)
	}
	if r.leak != "" || r.end.LiveBlocks != 0 || r.end.LiveBytes != 0 || r.end.Failures() != 0 {
		t.Errorf("live at the end: %+v\n%s", r.end, r.leak)
	}
	var text strings.Builder
	if err := r.write(&text); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		`^12 lines of 5 files, 222 B; 3 packages have long comments; \d+\.\d s\n\na +3 comments of +89 bytes, the longest: // and this, the longest, has 38 bytes…\nb `,
		`\n\nstage +buffers +grown +allocated +peak +left\ngenerate +\d+ .*\nread .*\nfilter .*\njoin .*\naggregate .* 0 B\n`,
		`\n\nlive at the end: 0 buffers of 0 bytes\nfiles: .*; trace: [0-9a-f]{32}\n$`,
	} {
		if !regexp.MustCompile(want).MatchString(text.String()) {
			t.Errorf("no %s in\n%s", want, text.String())
		}
	}
}

// TestSize: no more is read than was asked for.
func TestSize(t *testing.T) {
	r := runProgram(t, "", options{dir: writeSources(t), size: 100, min: 20})
	if want := (input{files: 2, lines: 6, bytes: 100}); r.input != want {
		t.Errorf("the input is %+v, want %+v", r.input, want)
	}
}

func TestNoInput(t *testing.T) {
	dir := t.TempDir()
	if _, err := run(context.Background(), options{dir: dir, out: t.TempDir(), size: 100}); err == nil || !strings.Contains(err.Error(), "no Go file is below "+dir) {
		t.Errorf("of an empty folder: %v", err)
	}
}

// TestNothingFound: a query without a row.
func TestNothingFound(t *testing.T) {
	if r := runProgram(t, "", options{dir: writeSources(t), size: 1 << 20, min: 1000}); len(r.answers) != 0 || r.leak != "" {
		t.Errorf("answers %v; %s", r.answers, r.leak)
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "empty.go"), nil, 0o666); err != nil {
		t.Fatal(err)
	}
	if r := runProgram(t, "", options{dir: dir, size: 1 << 20}); len(r.answers) != 0 || r.leak != "" || r.input.files != 1 {
		t.Errorf("of an empty file: answers %v; %s", r.answers, r.leak)
	}
}

// TestModel compares the answers for a larger input with those of a loop over its lines.
func TestModel(t *testing.T) {
	dir := t.TempDir()
	for i := range 50 { // of several row groups
		var text bytes.Buffer
		for n := range 3000 {
			fmt.Fprintf(&text, "%*s// comment %d of %s\nfunc f%d() {}\n\n", n%9, "", n, strings.Repeat("x", (n*i)%80), n)
		}
		folder := filepath.Join(dir, fmt.Sprint("p", i%7))
		if err := os.MkdirAll(folder, 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(folder, fmt.Sprint(i, ".go")), text.Bytes(), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	o := options{dir: dir, size: 1 << 30, min: 60}
	r := runProgram(t, "", o)
	if r.input.lines != 50*3000*3 {
		t.Errorf("%d lines", r.input.lines)
	}
	want := make(map[string]answer)
	err := fs.WalkDir(os.DirFS(dir), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := os.ReadFile(filepath.Join(dir, name))
		for line := range strings.Lines(string(text)) {
			line = strings.TrimSpace(line)
			if int64(len(line)) < o.min || !strings.HasPrefix(line, "//") {
				continue
			}
			a := want[path.Dir(name)]
			a.pkg, a.comments, a.bytes = path.Dir(name), a.comments+1, a.bytes+int64(len(line))
			if len(line) > len(a.longest) {
				a.longest = line
			}
			want[a.pkg] = a
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	sorted := slices.SortedFunc(maps.Values(want), func(a, b answer) int { return cmp.Compare(b.bytes, a.bytes) })
	if !slices.Equal(r.answers, sorted) {
		t.Errorf("the answers are %+v,\nwant %+v", r.answers, sorted)
	}
}

// TestMemory runs all in memory that finds misuse and leaks.
func TestMemory(t *testing.T) {
	q := &query{
		mem: alloctest.New(t, alloctest.WithSkip(arrowPackages)), spans: noop.NewTracerProvider(),
		options: options{dir: writeSources(t), size: 1 << 20, min: 20},
	}
	out := t.TempDir()
	if _, err := q.generate(t.Context(), out); err != nil {
		t.Fatal(err)
	}
	got, err := q.run(t.Context(), out)
	if err != nil || !slices.Equal(got, answers) {
		t.Errorf("the answers are %+v (%v),\nwant %+v", got, err, answers)
	}
}

// recorder is a test that keeps its failures.
type recorder struct {
	testing.TB
	errors   []string
	cleanups []func()
}

func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

// TestLeakInTest: alloctest finds the planted leak, with the line of who forgot the array.
func TestLeakInTest(t *testing.T) {
	r := &recorder{TB: t}
	q := &query{
		mem: alloctest.New(r, alloctest.WithSkip(arrowPackages)), spans: noop.NewTracerProvider(),
		options: options{dir: writeSources(t), size: 1 << 20, min: 20, leak: true},
	}
	out := t.TempDir()
	if _, err := q.generate(t.Context(), out); err != nil {
		t.Fatal(err)
	}
	if _, err := q.run(t.Context(), out); err != nil {
		t.Fatal(err)
	}
	slices.Reverse(r.cleanups)
	for _, f := range r.cleanups {
		f()
	}
	if len(r.errors) != 1 || !leakLine.MatchString(r.errors[0]) {
		t.Errorf("alloctest says %q, want %v", r.errors, leakLine)
	}
}

// leakLine is who forgot the array, in a report.
var leakLine = regexp.MustCompile(`(main|arrow)\.groupEnds \(query\.go:\d+\), \S+aggregate \(query\.go:\d+\)`)

func TestLeak(t *testing.T) {
	r := runProgram(t, "", options{dir: writeSources(t), size: 1 << 20, min: 20, leak: true})
	if !slices.Equal(r.answers, answers) || r.end.LiveBlocks != 2 || !leakLine.MatchString(r.leak) {
		t.Errorf("%d blocks are live, and the report is %s", r.end.LiveBlocks, r.leak)
	}
	spans := jaegertest.ReadFile(t, filepath.Join(r.out, "trace.json"))
	wantStages(t, spans, r)
	wantLeaks(t, spans)
}

// wantStages checks that each stage is a span with the bytes that the report has.
func wantStages(t *testing.T, spans []jaegertest.Span, r report) {
	t.Helper()
	var root jaegertest.Span
	for _, s := range spans {
		if s.Name == "query" && s.TraceID == r.traceID {
			root = s
		}
	}
	if got, want := root.Attributes["allocator.memory.net"], r.end.LiveBytes; got != want {
		t.Errorf("the whole has left %v bytes, want %d", got, want)
	}
	var names []string
	for _, want := range r.stages {
		names = append(names, want.name)
		found := 0
		for _, s := range spans {
			if s.Name != want.name || s.TraceID != r.traceID || s.ParentID != root.SpanID {
				continue
			}
			found++
			for name, want := range map[string]int64{
				"allocator.memory.allocated": want.AllocatedBytes, "allocator.memory.net": want.LiveBytes,
				"allocator.memory.peak": want.PeakBytes, "allocator.allocations": want.Allocations,
			} {
				if got := s.Attributes[name]; got != want || name == "allocator.memory.allocated" && want == 0 {
					t.Errorf("%s: %s is %v, want %d", s.Name, name, got, want)
				}
			}
		}
		if found != 1 {
			t.Errorf("%d spans of stage %s, want 1", found, want.name)
		}
	}
	if want := []string{"generate", "read", "filter", "join", "aggregate"}; !slices.Equal(names, want) {
		t.Errorf("the stages are %q, want %q", names, want)
	}
}

// wantLeaks checks that the blocks of the array that was forgotten are spans with the stack of who forgot it.
func wantLeaks(t *testing.T, spans []jaegertest.Span) {
	t.Helper()
	n := 0
	for _, s := range spans {
		if s.Attributes["allocator.leaked"] != true {
			continue
		}
		n++
		stack := fmt.Sprint(s.Attributes["code.stacktrace"])
		if !regexp.MustCompile(`^\S+groupEnds\n\t\S+query\.go:\d+\n`).MatchString(stack) || s.Attributes["allocator.region"] != "aggregate" {
			t.Errorf("a leak in region %v has the stack %s", s.Attributes["allocator.region"], stack)
		}
	}
	if n != 2 {
		t.Errorf("%d leaks are spans, want 2", n)
	}
}

// TestJaeger finds the stages and the leak in a real Jaeger.
func TestJaeger(t *testing.T) {
	j := jaegertest.Start(t)
	r := runProgram(t, j.HTTPEndpoint(), options{dir: writeSources(t), size: 1 << 20, min: 20, leak: true})
	wantStages(t, j.Trace(r.traceID, len(r.stages)+1), r)
	var leaks []jaegertest.Span
	for _, trace := range j.FindTagged("arrow", "allocator.leaked", "true") {
		leaks = append(leaks, trace...)
	}
	wantLeaks(t, leaks)
}
