package otlp

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/trace"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/otlpfile"
	"github.com/alloctrace/alloctrace/internal/jaegertest"
	"github.com/alloctrace/alloctrace/tracer"
)

// stormFile is the variable that has this test binary be the program that is killed. Its value is the path of the files.
const stormFile = "ALLOCTRACE_STORM_FILE"

// storm writes regions from several goroutines until it is killed. Each flushes a trace at a time, and then prints the ids of
// its spans on a line.
func storm(path string) {
	p, err := New(context.Background(), Options{File: path, ServiceName: "storm", Rotation: otlpfile.Rotation{MaxFileBytes: 100_000}})
	if err != nil {
		log.Fatal(err)
	}
	mem := alloctrace.Wrap(blockalloc.Default())
	with := []tracer.Option{tracer.WithTracerProvider(p), tracer.WithAttributes(attribute.String("text", strings.Repeat("0123456789", 100)))}
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for {
				ids := make([]string, 20)
				ctx, all := tracer.Start(context.Background(), "all", mem, with...)
				ids[0] = trace.SpanContextFromContext(ctx).SpanID().String()
				for i := range ids[1:] {
					ctx, r := tracer.Start(ctx, "step", mem, with...)
					ids[1+i] = trace.SpanContextFromContext(ctx).SpanID().String()
					r.End()
				}
				all.End()
				if err := p.ForceFlush(context.Background()); err != nil {
					log.Fatal(err)
				}
				// A line of less than 4 KiB is in the pipe as a whole or not at all.
				if _, err := fmt.Println(strings.Join(ids, " ")); err != nil {
					os.Exit(1) // the test is gone
				}
			}
		})
	}
	wg.Wait()
}

// killStorm runs storm, kills it at a random moment, and returns the ids that it had printed.
func killStorm(t *testing.T, path string) (ids []string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), stormFile+"="+path)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	var killed bool
	for last := rand.N(60); ; last-- {
		if last <= 0 && !killed {
			time.Sleep(rand.N(2 * time.Millisecond)) // anywhere in a flush
			killed = true
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
		line, err := lines.ReadString('\n')
		if err == io.EOF { // what is before it is no whole line
			break
		} else if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, strings.Fields(line)...)
	}
	cmd.Wait()
	if !killed {
		t.Fatalf("the program ended by itself: %v\n%s", cmd.ProcessState, &stderr)
	}
	return ids
}

// spansIn returns the ids of the spans in the whole lines of a file, and how many bytes come after them.
func spansIn(t *testing.T, path string) (ids []string, half int) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(data) {
		if !bytes.HasSuffix(line, []byte("\n")) {
			return ids, len(line)
		}
		traces, err := jaegertest.Decode(line)
		if err != nil || len(traces) == 0 {
			t.Fatalf("%s has a line with %d traces, %v: %.300q", path, len(traces), err, line)
		}
		for _, tr := range traces {
			for _, s := range tr {
				ids = append(ids, s.SpanID)
			}
		}
	}
	return ids, 0
}

// killStorms kills a program again and again, which begins anew at the same path. It returns the ids of all spans in the files
// and checks that those that were flushed are there.
func killStorms(t *testing.T, path string, rounds int) (written map[string]bool) {
	t.Helper()
	checked := 0 // files
	written = make(map[string]bool)
	for range rounds {
		flushed := killStorm(t, path)
		files, err := otlpfile.Files(path)
		if err != nil {
			t.Fatal(err)
		}
		for i, f := range files[checked:] {
			ids, half := spansIn(t, f)
			if half > 0 && checked+i < len(files)-1 {
				t.Errorf("%d bytes of half a line in %s, and %s is the newest file", half, f, files[len(files)-1])
			}
			for _, id := range ids {
				if written[id] {
					t.Errorf("span %s is there twice", id)
				}
				written[id] = true
			}
		}
		checked = len(files)
		for _, id := range flushed {
			if !written[id] {
				t.Fatalf("span %s was flushed and is not in the files", id)
			}
		}
		t.Logf("%d spans flushed, %d files and %d spans so far", len(flushed), len(files), len(written))
	}
	return written
}

// TestKilled: after SIGKILL everything but the last flush is in the files, and the next run leaves whole lines alone.
func TestKilled(t *testing.T) {
	rounds := 10
	if testing.Short() {
		rounds = 3
	}
	if os.Getenv("ALLOCTRACE_REQUIRE_ALL") == "1" {
		rounds = 50
	}
	path := filepath.Join(t.TempDir(), "trace.json")
	written := killStorms(t, path, rounds)
	p := newTestProvider(t, Options{File: path, Rotation: otlpfile.Rotation{MaxFileAge: time.Hour}}) // removes half a line
	defer p.Shutdown(t.Context())
	files, err := otlpfile.Files(path)
	if err != nil {
		t.Fatal(err)
	}
	left := 0
	for _, f := range files {
		spans, _ := readFile(t, f) // whole lines
		left += len(spans)
	}
	if left != len(written) || left == 0 {
		t.Errorf("the files have %d spans, want %d", left, len(written))
	}
}

// TestJaegerTakesFilesOfTheKilled, half lines and all.
func TestJaegerTakesFilesOfTheKilled(t *testing.T) {
	j := jaegertest.Start(t)
	path := filepath.Join(t.TempDir(), "trace.json")
	written := killStorms(t, path, 5)
	files, err := otlpfile.Files(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", j.HTTPEndpoint())
	for _, f := range files {
		if endpoint, err := otlpfile.Send(t.Context(), f); err != nil || endpoint == "" {
			t.Fatalf("sent to %q: %v", endpoint, err)
		}
	}
	stored := 0
	for _, tr := range j.FindTraces("storm") {
		for _, s := range tr {
			stored++
			if !written[s.SpanID] {
				t.Errorf("Jaeger has span %s, which is not in the files", s.SpanID)
			}
		}
	}
	if stored != len(written) {
		t.Errorf("Jaeger has %d spans, want %d", stored, len(written))
	}
}
