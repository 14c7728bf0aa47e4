package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/pprof/profile"

	"github.com/alloctrace/alloctrace/internal/jaegertest"
)

// A result is what the program did.
type result struct {
	code           int
	stdout, stderr string
}

func scheme(t *testing.T, stdin string, args ...string) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := command(args, strings.NewReader(stdin), &stdout, &stderr)
	return result{code, stdout.String(), stderr.String()}
}

func (r result) want(t *testing.T, code int, stdout string) {
	t.Helper()
	if r.code != code || r.stdout != stdout {
		t.Errorf("exit code %d, stdout %q, stderr %q; want %d and %q", r.code, r.stdout, r.stderr, code, stdout)
	}
}

func file(t *testing.T, text string) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "program.scm")
	if err := os.WriteFile(name, []byte(text), 0o666); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestPrograms(t *testing.T) {
	files, err := filepath.Glob("testdata/*.scm")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d programs, %v", len(files), err)
	}
	for _, name := range files {
		want, err := os.ReadFile(strings.TrimSuffix(name, "scm") + "want")
		if err != nil {
			t.Fatal(err)
		}
		r := scheme(t, "", "-stats", "-limit", "2", name)
		r.want(t, 0, string(want))
		if !strings.HasSuffix(r.stderr, " at once, and 0 B are left\n") || strings.Contains(r.stderr, "outside the Go heap 0 B were") {
			t.Errorf("%s: stderr %q", name, r.stderr)
		}
	}
}

func TestCommandLine(t *testing.T) {
	scheme(t, "", file(t, `(write (cdr (command-line))) (exit 7)`), "a", "b c").want(t, 7, `("a" "b c")`)
	scheme(t, "typed\n", file(t, `(write (read-line))`)).want(t, 0, `"typed"`)
	for _, c := range []struct {
		args   []string
		code   int
		stderr string
	}{
		{[]string{"-limit", "0"}, 2, "scheme: -limit 0: it is between 1 and 1048576 MiB\n"},
		{[]string{"no-such-file.scm"}, 1, "no-such-file.scm"},
		{[]string{file(t, "(car 1)")}, 1, "car: wants a pair, got 1\n"},
		{[]string{file(t, "(car")}, 1, "line 1: the text ends inside a list\n"},
		{[]string{"-limit", "1", file(t, "(define l '()) (let loop () (set! l (cons 1 l)) (loop))")}, 1, "limit 1048576 B: free blocks or raise it by SetMax\n"},
		{[]string{"-trace", filepath.Join(t.TempDir(), "missing", "file")}, 1, "missing"},
		{[]string{"-pprof", filepath.Join(t.TempDir(), "missing", "file")}, 1, "missing"},
	} {
		if r := scheme(t, "", c.args...); r.code != c.code || !strings.Contains(r.stderr, c.stderr) {
			t.Errorf("%q: exit code %d, stderr %q", c.args, r.code, r.stderr)
		}
	}
	if r := scheme(t, "", "-h"); r.code != 0 || !strings.Contains(r.stderr, "-limit MiB") {
		t.Errorf("-h: exit code %d, stderr %q", r.code, r.stderr)
	}
}

// TestREPL: an error ends the form that it is in, out of memory included, and what follows runs.
func TestREPL(t *testing.T) {
	r := scheme(t, `(define l '())
(let loop () (set! l (cons 1 l)) (loop))
(set! l '())
(define (f x)
  (* x
     2))
(f 21) 'two
(car 1)
(read-line)
this is data
"last"`, "-limit", "1")
	r.want(t, 0, "> > > >     > 42\ntwo\n> > \"this is data\"\n> \"last\"\n\n")
	if strings.Count(r.stderr, "error: ") != 2 || !strings.Contains(r.stderr, "error: out of memory: ") || !strings.Contains(r.stderr, "error: car: ") {
		t.Errorf("stderr %q", r.stderr)
	}
}

// TestReadError: an error of the standard input is not taken for its end.
func TestReadError(t *testing.T) {
	broken := iotest.ErrReader(errors.New("broken"))
	for _, args := range [][]string{nil, {file(t, "(read-line)")}, {file(t, "(read)")}} {
		var stdout, stderr bytes.Buffer
		if code := command(args, broken, &stdout, &stderr); code != 1 || !strings.Contains(stderr.String(), "broken") {
			t.Errorf("%v: exit code %d, stderr %q", args, code, &stderr)
		}
	}
	var stdout, stderr bytes.Buffer
	if code := command([]string{file(t, "(guard (e ((file-error? e) (exit 3))) (read-char))")}, broken, &stdout, &stderr); code != 3 {
		t.Errorf("exit code %d, stderr %q", code, &stderr)
	}
}

func TestREPLExit(t *testing.T) {
	scheme(t, "(display \"a\")\n(exit 5)\n(display \"b\")\n").want(t, 5, "> a> ")
}

// spans are those of a trace file, by name.
func spans(t *testing.T, file string) map[string][]map[string]any {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	all := make(map[string][]map[string]any)
	for _, line := range strings.Split(strings.TrimSpace(string(text)), "\n") {
		var request struct {
			ResourceSpans []struct {
				ScopeSpans []struct {
					Spans []struct {
						Name       string
						Attributes []struct {
							Key   string
							Value map[string]any
						}
					}
				}
			}
		}
		if err := json.Unmarshal([]byte(line), &request); err != nil {
			t.Fatal(err)
		}
		for _, r := range request.ResourceSpans {
			for _, s := range r.ScopeSpans {
				for _, span := range s.Spans {
					attributes := make(map[string]any)
					for _, a := range span.Attributes {
						for _, v := range a.Value {
							attributes[a.Key] = v
						}
					}
					all[span.Name] = append(all[span.Name], attributes)
				}
			}
		}
	}
	return all
}

func number(t *testing.T, span map[string]any, key string) (n int64) {
	t.Helper()
	if _, err := fmt.Sscan(fmt.Sprint(span[key]), &n); err != nil {
		t.Fatalf("attribute %s of %v: %v", key, span, err)
	}
	return n
}

// TestTrace: the program and its collections are spans, which say what was live and what went back.
func TestTrace(t *testing.T) {
	name := filepath.Join(t.TempDir(), "trace.json")
	if r := scheme(t, "", "-trace", name, "testdata/binary-trees.scm", "12"); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	found := spans(t, name)
	program, collections := found["program binary-trees.scm"], found["collection"]
	if len(found) != 2 || len(program) != 1 || len(collections) < 3 {
		t.Fatalf("spans %v", found)
	}
	if number(t, program[0], "heap.collections") != int64(len(collections)) || number(t, program[0], "allocator.memory.net") != 0 ||
		number(t, program[0], "allocator.memory.peak") < 1<<20 {
		t.Errorf("the program's span has %v; there are %d of collections", program[0], len(collections))
	}
	freed := int64(0)
	for _, c := range collections {
		before, after := number(t, c, "heap.blocks.before"), number(t, c, "heap.blocks.after")
		if net := number(t, c, "allocator.memory.net"); net != after-before {
			t.Errorf("a collection has changed %d bytes of blocks to %d, and the region counts %d", before, after, net)
		}
		if live := number(t, c, "heap.objects.live"); live <= 0 || live > number(t, c, "heap.objects.before") || live > after {
			t.Errorf("%d bytes are live in a collection with %v", live, c)
		}
		freed += number(t, c, "allocator.memory.freed")
	}
	if freed == 0 {
		t.Error("no collection has given a block back")
	}
}

// TestJaeger finds the spans of a program in a real Jaeger.
func TestJaeger(t *testing.T) {
	if os.Getenv("ALLOCTRACE_REQUIRE_ALL") != "1" {
		t.Skip("needs a real Jaeger: set ALLOCTRACE_REQUIRE_ALL=1, which builds one where there is none")
	}
	j := jaegertest.Start(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", j.HTTPEndpoint())
	name := filepath.Join(t.TempDir(), "trace.json")
	if r := scheme(t, "", "-trace", name, "testdata/binary-trees.scm", "12"); r.code != 0 || r.stderr != "" {
		t.Fatalf("%+v", r)
	}
	found := j.FindTraces(service)
	if len(found) != 1 {
		t.Fatalf("%d traces", len(found))
	}
	all := j.Trace(found[0][0].TraceID, 1+len(spans(t, name)["collection"]))
	program, collections := all.Named("program binary-trees.scm"), all.Named("collection")
	if len(program) != 1 || len(collections) < 3 || program[0].ParentID != "" {
		t.Fatalf("spans %+v", all)
	}
	for _, c := range collections {
		if c.ParentID != program[0].SpanID || c.Start < program[0].Start || c.End > program[0].End {
			t.Errorf("a collection is not in the program: %+v", c)
		}
		if _, ok := c.Attributes["heap.objects.live"]; !ok {
			t.Errorf("a collection has %v", c.Attributes)
		}
	}
}

// TestNoJaeger: the program has run, and the trace is in the file.
func TestNoJaeger(t *testing.T) {
	name := filepath.Join(t.TempDir(), "trace.json")
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	r := scheme(t, "", "-trace", name, "testdata/nqueens.scm")
	r.want(t, 0, "7 queens: 40\n")
	if !strings.Contains(r.stderr, "scheme: warning: the trace is in "+name+", and not in Jaeger") || len(spans(t, name)) != 1 {
		t.Errorf("stderr %q", r.stderr)
	}
}

// TestProfile: go tool pprof shows which procedure has taken which blocks.
func TestProfile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "heap.pb.gz")
	if r := scheme(t, "", "-pprof", name, file(t, `
		(define (fill n) (if (= n 0) '() (cons n (fill (- n 1)))))
		(define l (fill 100000))`)); r.code != 0 {
		t.Fatalf("%+v", r)
	}
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	p, err := profile.Parse(f)
	if err != nil {
		t.Fatal(err)
	}
	column := -1
	for i, s := range p.SampleType {
		if s.Type == "inuse_space" {
			column = i
		}
	}
	inUse, fill := int64(0), int64(0)
	for _, s := range p.Sample {
		inUse += s.Value[column]
		if l := s.Label["procedure"]; len(l) == 1 && l[0] == "fill" {
			fill += s.Value[column]
		}
	}
	if fill < 100_000*24 || inUse < fill {
		t.Errorf("%d bytes in use, %d of them by fill, which has made a list of 100,000 pairs", inUse, fill)
	}
}
