package root_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"

	"github.com/rs/zerolog"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/hooks/sloghook"
	"github.com/alloctrace/alloctrace/hooks/zlog"
	"github.com/alloctrace/alloctrace/internal/fields"
	"github.com/alloctrace/alloctrace/internal/spantest"
	"github.com/alloctrace/alloctrace/tracer"
	"github.com/alloctrace/alloctrace/tracer/flight"
)

var _ = flag.Bool("update", false, "write the golden files of testdata anew")

// TestRoot has each package of the root module write one example that has all of its fields.
func TestRoot(t *testing.T) {
	compare := func(name string, lines []string) {
		t.Helper()
		fields.Compare(t, "testdata/"+name+".txt", lines)
	}
	var events []string
	for k := alloctrace.Allocated; k <= alloctrace.FreeFailed; k++ {
		events = append(events, k.String()+" "+k.Op())
	}
	compare("events", events)

	mem := alloctest.New(t)
	spans := trace.ContextWithSpanContext(t.Context(), trace.NewSpanContext(trace.SpanContextConfig{TraceID: trace.TraceID{1}, SpanID: trace.SpanID{1}}))
	var zlogLine, slogLine, writerLine bytes.Buffer
	failing := alloctrace.Wrap(blockalloc.Null{}, alloctrace.WithName("cache"), alloctrace.WithHooks(
		zlog.New(zerolog.New(&zlogLine)), sloghook.New(slog.NewJSONHandler(&slogLine, nil)), hooks.NewWriter(&writerLine)))
	_, _ = failing.Child("child").WithContext(spans).Allocate(blockalloc.BlockLayout(64))
	compare("zlog", fields.Object(t, zlogLine.Bytes()))
	compare("sloghook", fields.Object(t, slogLine.Bytes()))
	compare("writer", writerFields(writerLine.String()))
	compare("report", append(reportFields(t, debug.UseAfterFree), reportFields(t, debug.Leak)...))

	block, err := mem.Allocate(blockalloc.BlockLayout(64))
	if err != nil {
		t.Fatal(err)
	}
	compare("stats", fields.JSON(t, mem.Stats()))
	compare("leaks", leakFields(t, mem))
	if err := mem.Free(block); err != nil {
		t.Error(err)
	}

	kept := new(spantest.Recorder)
	var records []string
	useRegion(t, kept, tracer.WithLogs(func(_ context.Context, r tracer.LogRecord) {
		records = []string{r.Event + " event", r.Level.String() + " severity", "body string"}
		for _, a := range r.Attributes {
			records = append(records, string(a.Key)+" "+strings.ToLower(a.Value.Type().String()))
		}
	}))
	compare("tracer", attributesOf(kept))

	kept = new(spantest.Recorder)
	leak(t, kept)
	compare("lifetimes", attributesOf(kept))
	compare("logs", records)

	kept = new(spantest.Recorder)
	for _, kind := range []debug.Kind{debug.UseAfterFree, debug.Leak} {
		tracer.Reports(tracer.WithTracerProvider(kept))(report(kind))
	}
	compare("misuse", attributesOf(kept))

	flown := new(spantest.Recorder)
	useFlight(t, flown)
	compare("flight", attributesOf(flown))

	ctx, region := tracer.Start(t.Context(), "region", failing.Child("child"), tracer.WithTracerProvider(noop.NewTracerProvider()), tracer.WithProfilerLabels())
	var labels []string
	pprof.ForLabels(ctx, func(key, _ string) bool {
		labels = append(labels, key+" label")
		return true
	})
	region.End()
	compare("labels", labels)

	var metrics []string
	for unit := range testing.Benchmark(func(b *testing.B) { alloctest.ReportMetrics(b, mem) }).Extra {
		metrics = append(metrics, unit+" number")
	}
	compare("benchmark", metrics)
}

// useRegion has a region's span say all that it can.
func useRegion(t *testing.T, spans trace.TracerProvider, logs tracer.Option) {
	lifetimes := tracer.NewLifetimes(tracer.LifetimeOptions{TracerProvider: noop.NewTracerProvider()})
	defer lifetimes.Close()
	limit := blockalloc.NewLimit(new(blockalloc.Heap), 64)
	mem := alloctrace.Wrap(limit, alloctrace.WithName("cache"))
	with := []tracer.Option{tracer.WithTracerProvider(spans), tracer.WithBudget(tracer.NewBudget(2)), logs}
	ctx, region := tracer.Start(t.Context(), "region", mem, with...)
	first, err := mem.Child("NAME").WithContext(ctx).Allocate(blockalloc.BlockLayout(64))
	_, failure := mem.WithContext(ctx).Allocate(blockalloc.BlockLayout(64)) // has a span, as the region has; the next has none
	_, suppressed := mem.WithContext(ctx).Allocate(blockalloc.BlockLayout(64))
	if err != nil || failure == nil || suppressed == nil {
		t.Fatal(err, failure, suppressed)
	}
	region.Move(first, nil)
	freed := make(chan error)
	go func() {
		for limit.Waiting() == 0 {
			runtime.Gosched()
		}
		freed <- mem.Free(first)
	}()
	b, err := mem.AllocateContext(ctx, blockalloc.BlockLayout(64))
	if err := errors.Join(err, <-freed, mem.Free(b)); err != nil {
		t.Fatal(err)
	}
	var outside *tracer.Region
	outside.Move(b, region)
	region.End()
}

// leak makes a span of a block's life that says all that it can.
func leak(t *testing.T, spans trace.TracerProvider) {
	lifetimes := tracer.NewLifetimes(tracer.LifetimeOptions{Rate: 1, TracerProvider: spans})
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithName("mem"), alloctrace.WithHooks(lifetimes))
	in, _ := tracer.Start(t.Context(), "one", mem, tracer.WithTracerProvider(noop.NewTracerProvider()))
	other, _ := tracer.Start(t.Context(), "other", mem, tracer.WithTracerProvider(noop.NewTracerProvider()))
	child := mem.Child("child")
	b, err := child.WithContext(in).Allocate(blockalloc.BlockLayout(64))
	if err := errors.Join(err, child.WithContext(other).Free(b)); err != nil {
		t.Fatal(err)
	}
	lifetimes.Close()
}

// useFlight has a flight record say all that it can.
func useFlight(t *testing.T, spans trace.TracerProvider) {
	heap := heapprofile.New(heapprofile.Options{Rate: 1})
	recorder := flight.New(flight.Options{TracerProvider: spans, Profile: heap})
	mem := alloctrace.Wrap(blockalloc.NewLimit(new(blockalloc.Heap), 1<<20), alloctrace.WithName("cache"), alloctrace.WithHooks(heap, recorder))
	recorder.Watch(mem)
	child := mem.Child("child")
	for range 100 {
		if _, err := child.Allocate(blockalloc.BlockLayout(64)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, region := tracer.Start(t.Context(), "region", mem, tracer.WithTracerProvider(noop.NewTracerProvider()))
	defer region.End()
	for range 2 { // one makes a record, the other none
		_, _ = mem.WithContext(ctx).Allocate(blockalloc.BlockLayout(2 << 20))
	}
	if err := errors.Join(recorder.Close(), recorder.Dump(ctx)); err != nil {
		t.Fatal(err)
	}
}

// writerFields returns the fields of a line of a hooks.Writer. What a quoted value has is none.
func writerFields(line string) (list []string) {
	line = regexp.MustCompile(`"(\\.|[^"\\])*"`).ReplaceAllString(line, `""`)
	for _, f := range regexp.MustCompile(`(\w+)=(\S+)`).FindAllStringSubmatch(line, -1) {
		kind := "number"
		switch {
		case f[2] == `""`:
			kind = "string"
		case strings.HasPrefix(f[2], "0x"):
			kind = "hexadecimal"
		}
		list = append(list, f[1]+" "+kind)
	}
	return list
}

// report returns a report with all stacks.
func report(kind debug.Kind) *debug.Report {
	stack := make(debug.Stack, 8)
	stack = stack[:runtime.Callers(1, stack)]
	return &debug.Report{Kind: kind, Op: "Free", Allocated: stack, Freed: stack, Now: stack}
}

// reportFields returns those of a line of slog about an error with memory.
func reportFields(t *testing.T, kind debug.Kind) []string {
	var line bytes.Buffer
	slog.New(slog.NewJSONHandler(&line, nil)).Error("", "report", report(kind))
	var fieldsOf struct{ Report map[string]any }
	if err := json.Unmarshal(line.Bytes(), &fieldsOf); err != nil {
		t.Fatal(err)
	}
	return fields.JSON(t, fieldsOf.Report)
}

// leakFields returns those of the report of leaks. Some fields are left out if they have nothing to say.
func leakFields(t *testing.T, mem *alloctrace.Proxy) []string {
	r := alloctest.Profile(mem).Report()
	r.Sites[0].Owner, r.Sites[0].Cut = "owner", true
	r.Error, r.Sites[0].Error = 1, 1
	return fields.JSON(t, r)
}

// attributesOf returns the attributes of all spans, with their types.
func attributesOf(r *spantest.Recorder) []string {
	kinds := make(map[string]bool)
	for _, s := range r.Spans {
		for key, value := range s.Attributes {
			kinds[string(key)+" "+strings.ToLower(value.Type().String())] = true
		}
	}
	return slices.Collect(maps.Keys(kinds))
}

// TestTables compares each golden file with the table of docs/fields.md that names it. Files of other modules are there in a
// clone alone.
func TestTables(t *testing.T) {
	text, err := os.ReadFile("../../../docs/fields.md")
	if err != nil {
		t.Fatal(err)
	}
	named := make(map[string]bool)
	for _, section := range strings.Split(string(text), "\n## ")[1:] {
		title, _, _ := strings.Cut(section, "\n")
		link := regexp.MustCompile(`\]\((\.\./[^)]+\.txt)\)`).FindStringSubmatch(section)
		if link == nil {
			t.Errorf("section %q names no golden file", title)
			continue
		}
		file := path.Join("../../../docs", link[1])
		named[file] = true
		golden, err := os.ReadFile(file)
		if _, clone := os.Stat("../../../exporters"); errors.Is(err, fs.ErrNotExist) && clone != nil {
			continue
		}
		if err != nil {
			t.Error(err)
			continue
		}
		var want, got []string
		for line := range strings.Lines(string(golden)) {
			want = append(want, strings.TrimSpace(line))
		}
		for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\| (.*?) \\| (.*?) \\|").FindAllStringSubmatch(section, -1) {
			line := row[1] + " " + row[2]
			if !slices.Contains(want, line) { // the file has units too, if the code has
				line += " " + row[3]
			}
			got = append(got, line)
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("section %q has\n%s\nand %s has\n%s", title, strings.Join(got, "\n"), file, strings.Join(want, "\n"))
		}
	}
	for _, pattern := range []string{"../../../internal/fields/root/testdata/*.txt", "../../../exporters/*/testdata/fields.txt", "../../../exporters/*/internal/test/testdata/fields.txt"} {
		files, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if !named[filepath.ToSlash(file)] {
				t.Errorf("no section of docs/fields.md names %s", file)
			}
		}
	}
}
