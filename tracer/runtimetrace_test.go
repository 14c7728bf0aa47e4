package tracer_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	rtrace "runtime/trace"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/process"
	"github.com/alloctrace/alloctrace/tracer"
)

// A traced is what go tool trace reads of one task.
type traced struct {
	name, parent string
	messages     []string
	ended        bool
}

// readTrace returns the tasks in a trace of the Go runtime, by number, as go tool trace reads them.
func readTrace(t *testing.T, file string) map[string]*traced {
	t.Helper()
	if !process.CanStart(t) {
		t.Skip("the trace is read with go tool trace, which would be a process")
	}
	out, err := exec.Command("go", "tool", "trace", "-d=parsed", file).CombinedOutput()
	if err != nil {
		if exec.Command("go", "version").Run() == nil || os.Getenv("ALLOCTRACE_REQUIRE_ALL") == "1" {
			t.Fatalf("go tool trace: %v\n%s", err, out)
		}
		t.Skip("the trace is read with go tool trace: put the go command on PATH")
	}
	tasks := make(map[string]*traced)
	task := func(id string) *traced {
		if tasks[id] == nil {
			tasks[id] = new(traced)
		}
		return tasks[id]
	}
	for line := range strings.Lines(string(out)) {
		if m := taskBegin.FindStringSubmatch(line); m != nil {
			task(m[1]).name, task(m[1]).parent = m[3], m[2]
		}
		if m := taskEnd.FindStringSubmatch(line); m != nil {
			task(m[1]).ended = true
		}
		if m := taskLog.FindStringSubmatch(line); m != nil {
			task(m[1]).messages = append(task(m[1]).messages, m[2])
		}
	}
	return tasks
}

var (
	taskBegin = regexp.MustCompile(`TaskBegin .*?ID=(\d+) Parent=(\d+) Type="(.*?)"`)
	taskEnd   = regexp.MustCompile(`TaskEnd .*?ID=(\d+)`)
	taskLog   = regexp.MustCompile(`Log .*?Task=(\d+) Category="allocator" Message="(.*)"`)
)

// tracedRegions makes regions with peaks, a failure and a wait in them.
func tracedRegions(t *testing.T) {
	var spans recorder
	mem := alloctest.New(t)
	limit := blockalloc.NewLimit(mem, 8192)
	p := alloctrace.Wrap(limit)
	ctx, outer := tracer.Start(t.Context(), "load-index", p, tracer.WithTracerProvider(&spans))
	a := allocate(t, outer.Allocator(), 3000)
	b := allocate(t, outer.Allocator(), 3000)
	if _, err := outer.Allocator().Allocate(blockalloc.Layout{Size: 5000, Align: 8}); err == nil {
		t.Fatal("there was room")
	}
	free(t, outer.Allocator(), b)

	ctx, inner := tracer.InSpan(ctx, p)
	bounded, cancel := context.WithTimeout(ctx, time.Millisecond)
	defer cancel()
	if c, err := p.AllocateContext(bounded, blockalloc.Layout{Size: 6000, Align: 8}); err == nil {
		t.Fatal("there was room", c)
	}
	free(t, inner.Allocator(), a)
	inner.End()
	outer.End()
}

func checkTraced(t *testing.T, file string) {
	t.Helper()
	tasks := readTrace(t, file)
	var outerID string
	for id, task := range tasks {
		if task.name == "load-index" {
			outerID = id
		}
	}
	outer := tasks[outerID]
	if outer == nil {
		t.Fatalf("no task load-index among %d", len(tasks))
	}
	want := []string{
		"peak 3000 bytes",
		"peak 6000 bytes",
		"allocate failed: 5000 bytes, 6000 live of the region, peak 6000: ",
		"end: 6000 bytes allocated, 6000 freed, 0 live, peak 6000, 2 failures, 1 waits",
	}
	check := func(of *traced, want []string) {
		t.Helper()
		if len(of.messages) != len(want) || !of.ended {
			t.Fatalf("task %q, ended %v, has %q\nwant %q", of.name, of.ended, of.messages, want)
		}
		for i, w := range want {
			if !strings.HasPrefix(of.messages[i], w) {
				t.Errorf("message %d is %q, want %q", i, of.messages[i], w)
			}
		}
	}
	check(outer, want)
	for _, task := range tasks {
		if task.name == "region" && task.parent == outerID {
			check(task, []string{
				"waited ", "allocate failed: 6000 bytes, 0 live of the region, peak 0: ",
				"end: 0 bytes allocated, 3000 freed, 0 live, peak 0, 1 failures, 1 waits",
			})
			return
		}
	}
	t.Error("no task of the region inside")
}

// TestRuntimeTrace: go tool trace finds each region as a task, with its messages.
func TestRuntimeTrace(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "go.trace"))
	if err != nil {
		t.Fatal(err)
	}
	if err := rtrace.Start(file); err != nil {
		t.Fatal(err)
	}
	tracedRegions(t)
	rtrace.Stop()
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	checkTraced(t, file.Name())
}

// TestFlightRecorder: so does it in what a FlightRecorder of the Go runtime has kept.
func TestFlightRecorder(t *testing.T) {
	r := rtrace.NewFlightRecorder(rtrace.FlightRecorderConfig{MinAge: time.Minute})
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	defer r.Stop()
	tracedRegions(t)
	file, err := os.Create(filepath.Join(t.TempDir(), "go.trace"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.WriteTo(file); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	checkTraced(t, file.Name())
}

// TestRuntimeTraceStops: a region may begin before a trace and end in it, and the other way round.
func TestRuntimeTraceStops(t *testing.T) {
	p := alloctest.New(t)
	var spans recorder
	_, before := tracer.Start(t.Context(), "before", p, tracer.WithTracerProvider(&spans))
	file, err := os.Create(filepath.Join(t.TempDir(), "go.trace"))
	if err != nil {
		t.Fatal(err)
	}
	if err := rtrace.Start(file); err != nil {
		t.Fatal(err)
	}
	_, in := tracer.Start(t.Context(), "in", p, tracer.WithTracerProvider(&spans))
	free(t, before.Allocator(), allocate(t, before.Allocator(), 4096))
	before.End()
	rtrace.Stop()
	free(t, in.Allocator(), allocate(t, in.Allocator(), 4096))
	in.End()
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	if s := before.Stats(); s.PeakBytes != 4096 || s.LiveBytes != 0 {
		t.Errorf("%v", s)
	}
	tasks := readTrace(t, file.Name())
	var got []string
	for _, task := range tasks {
		got = append(got, fmt.Sprint(task.name, task.messages, task.ended))
	}
	slices.Sort(got)
	if want := []string{"[peak 4096 bytes] false", "in[] false"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q: the message of a region without a task, and the task that did not end", got, want)
	}
}
