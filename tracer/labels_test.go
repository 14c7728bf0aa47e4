package tracer_test

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/pprof"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/internal/process"
	"github.com/alloctrace/alloctrace/tracer"
)

// labelsOf returns the labels of a context.
func labelsOf(ctx context.Context) map[string]string {
	labels := make(map[string]string)
	pprof.ForLabels(ctx, func(key, value string) bool {
		labels[key] = value
		return true
	})
	return labels
}

// goroutineLabels returns the labels of a goroutine that the caller starts, as the profile of
// goroutines has them: those of the caller.
func goroutineLabels(t *testing.T) string {
	t.Helper()
	started, stop := make(chan bool), make(chan bool)
	go inheritsLabels(started, stop)
	<-started
	defer func() { stop <- true }()
	for {
		var out bytes.Buffer
		if err := pprof.Lookup("goroutine").WriteTo(&out, 1); err != nil {
			t.Fatal(err)
		}
		var found []string
		for one := range strings.SplitSeq(out.String(), "\n\n") {
			if strings.Contains(one, "inheritsLabels") {
				found = append(found, one)
			}
		}
		if len(found) == 1 && strings.Contains("\n"+found[0], "\n1 @") { // else one from before is still ending
			if m := regexp.MustCompile(`(?m)^# labels: (.*)$`).FindStringSubmatch(found[0]); m != nil {
				return m[1]
			}
			return ""
		}
		runtime.Gosched()
	}
}

//go:noinline
func inheritsLabels(started, stop chan bool) {
	started <- true
	<-stop
}

// TestProfilerLabels: a region's labels are in its context, on its goroutine and on those that this starts;
// and at its end those from before are back.
func TestProfilerLabels(t *testing.T) {
	var spans recorder
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithName("search"))
	options := []tracer.Option{tracer.WithTracerProvider(&spans), tracer.WithProfilerLabels()}
	check := func(ctx context.Context, want map[string]string, text string) {
		t.Helper()
		if got := labelsOf(ctx); !maps.Equal(got, want) {
			t.Errorf("the context has %v, want %v", got, want)
		}
		if got := goroutineLabels(t); got != text {
			t.Errorf("the goroutine has %s, want %s", got, text)
		}
	}
	pprof.Do(t.Context(), pprof.Labels("job", "merge"), func(former context.Context) {
		ctx, outer := tracer.Start(former, "load", mem, options...)
		check(ctx, map[string]string{"allocator": "search", "job": "merge", "region": "load"}, `{"allocator":"search", "job":"merge", "region":"load"}`)
		in, inner := tracer.Start(ctx, "parse", mem.Child("words"), options...)
		check(in, map[string]string{"allocator": "words", "job": "merge", "region": "parse"}, `{"allocator":"words", "job":"merge", "region":"parse"}`)
		_, plain := tracer.Start(in, "plain", mem)
		plain.End()
		check(in, labelsOf(in), `{"allocator":"words", "job":"merge", "region":"parse"}`)
		inner.End()
		check(ctx, labelsOf(ctx), `{"allocator":"search", "job":"merge", "region":"load"}`)
		outer.End()
		outer.End()
		check(former, map[string]string{"job": "merge"}, `{"job":"merge"}`)

		ctx, borrowing := tracer.InSpan(former, mem, options...)
		check(ctx, map[string]string{"allocator": "search", "job": "merge"}, `{"allocator":"search", "job":"merge"}`)
		borrowing.End()
		check(former, map[string]string{"job": "merge"}, `{"job":"merge"}`)
	})
}

// TestProfilerLabelsAreShort: a value is valid UTF-8 of 48 bytes at most.
func TestProfilerLabelsAreShort(t *testing.T) {
	var spans recorder
	for name, want := range map[string]string{
		"a\xffb":                   "a\uFFFDb",
		strings.Repeat("x", 48):    strings.Repeat("x", 48),
		strings.Repeat("é", 25):    strings.Repeat("é", 22) + "…",
		strings.Repeat("x", 1<<20): strings.Repeat("x", 45) + "…",
	} {
		mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithName(name))
		ctx, r := tracer.Start(t.Context(), name, mem, tracer.WithTracerProvider(&spans), tracer.WithProfilerLabels())
		for key, got := range labelsOf(ctx) {
			if got != want || len(got) > 48 || !utf8.ValidString(got) {
				t.Errorf("label %s of %.60q is %q, want %q", key, name, got, want)
			}
		}
		if len(labelsOf(ctx)) != 2 {
			t.Errorf("labels %v", labelsOf(ctx))
		}
		r.End()
	}
}

// TestProfilerLabelsInProfile: the heap profile has what was allocated by region, and the name of a
// child that allocates rather than that of the Proxy around it.
func TestProfilerLabelsInProfile(t *testing.T) {
	var spans recorder
	heap := heapprofile.New(heapprofile.Options{Rate: 1})
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithName("search"), alloctrace.WithHooks(heap))
	ctx, r := tracer.Start(t.Context(), "load", mem, tracer.WithTracerProvider(&spans), tracer.WithProfilerLabels())
	defer r.End()
	allocate(t, mem.Child("pages").WithContext(ctx), 4096)
	allocate(t, r.Allocator(), 64)
	var got []string
	for _, s := range heap.Samples() {
		got = append(got, fmt.Sprint(s.LiveBytes, s.Labels))
	}
	if want := "[4096 [{region load} {allocator pages}] 64 [{allocator search} {region load}]]"; fmt.Sprint(got) != want {
		t.Errorf("%v\nwant %s", got, want)
	}
}

// TestTracebackLabels: in a module with go 1.27 in its go.mod, the traceback of a panic has the labels.
func TestTracebackLabels(t *testing.T) {
	if os.Getenv("ALLOCTRACE_REQUIRE_ALL") != "1" {
		t.Skip("builds a program with Go 1.27: set ALLOCTRACE_REQUIRE_ALL=1")
	}
	if !process.CanStart(t) {
		return
	}
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range map[string]string{
		"go.mod": `module labels
go 1.27
require github.com/alloctrace/alloctrace v0.0.0
replace github.com/alloctrace/alloctrace => ` + root + "\n",
		"go.sum": string(sums),
		"main.go": `package main

import (
	"context"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/tracer"
)

func main() {
	mem := alloctrace.Wrap(blockalloc.Default(), alloctrace.WithName("search"))
	_, region := tracer.Start(context.Background(), "GET /search", mem, tracer.WithProfilerLabels())
	defer region.End()
	var pages []int
	_ = pages[len(mem.Name())]
}
`,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	program := filepath.Join(dir, "labels.exe")
	build := exec.Command("go", "build", "-mod=mod", "-o", program, ".")
	build.Dir = dir
	build.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=", "GOTOOLCHAIN=go1.27.3")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	run := exec.Command(program)
	run.Env = append(os.Environ(), "GODEBUG=")
	out, err := run.CombinedOutput()
	if err == nil {
		t.Fatalf("the program has not panicked:\n%s", out)
	}
	if !bytes.Contains(out, []byte(`goroutine 1 [running] {allocator: search, region: "GET /search"}:`)) {
		t.Errorf("no labels in the traceback:\n%s", out)
	}
}
