package main

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/internal/jaegertest"
)

// beProgram has the test binary be the program, in a process of its own: see BenchmarkPagecache.
const beProgram = "PAGECACHE_TEST_BE_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(beProgram) != "" {
		main()
	}
	os.Exit(m.Run())
}

// runProgram runs the program with temporary files of its own, and returns its exit code and what it wrote.
func runProgram(t testing.TB, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	temp := t.TempDir()
	t.Setenv("TMPDIR", temp)
	t.Setenv("TMP", temp)
	var out, errs bytes.Buffer
	code = command(context.Background(), args, &out, &errs)
	if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
		t.Errorf("temporary files are left: %v, %v", left, err)
	}
	return code, out.String(), errs.String()
}

// runJSON runs the program, which must succeed, and returns its report.
func runJSON(t testing.TB, args ...string) report {
	t.Helper()
	code, stdout, stderr := runProgram(t, append(args, "-json")...)
	if code != 0 {
		t.Fatalf("exit code %d: %s", code, stderr)
	}
	var r report
	d := json.NewDecoder(strings.NewReader(stdout))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatalf("%v in %s", err, stdout)
	}
	warned := strings.Contains(stderr, "pagecache: warning: pages go through the kernel's page cache")
	if runtime.GOOS != "linux" && r.Direct || r.Direct == warned && !strings.Contains(strings.Join(args, " "), "-buffered") {
		t.Errorf("O_DIRECT used: %v; stderr: %q", r.Direct, stderr)
	}
	return r
}

// ops is how many operations the program's tests do.
func ops() (n int64, flag string) {
	switch {
	case requireAll:
		return 1_000_000, "-ops=1000000"
	case testing.Short():
		return 30_000, "-ops=30000"
	}
	return 60_000, "-ops=60000"
}

const mib = 1 << 20

// wantCounts checks what the report says of a run of n operations in 16 MiB, after which everything was freed but for some
// pages.
func wantCounts(t *testing.T, r report, n, leaked int64) {
	t.Helper()
	const pageSize, limit = 4096, 16 * mib
	c, pages, all := r.Cache, r.Purposes[forPages], r.End
	if r.Reads+r.Writes != n || r.Writes < n/6 || r.Writes > n/4 {
		t.Errorf("%d reads and %d writes of %d operations, of which one in 5 writes", r.Reads, r.Writes, n)
	}
	// An operation hits, misses or waits; a write that waited may be what brings its page into memory later.
	if uses := c.Hits + c.Misses + c.Buffered; uses < n || uses > n+2*c.Buffered+leaked {
		t.Errorf("%d uses of pages in %d operations: %+v", uses, n, c)
	}
	if c.Merged != c.Buffered || c.Buffered == 0 || c.Evictions == 0 || c.WriteBacks == 0 || c.WriteBacks > c.Merged+r.Writes {
		t.Errorf("%+v", c)
	}
	if rate := r.hitRate(); rate < 0.6 || rate > 0.99 {
		t.Errorf("%.3f of the uses are hits", rate)
	}
	if all.LiveBlocks != leaked || all.LiveBytes != leaked*pageSize || all.Failures() != 0 || all.Allocations-all.Frees != leaked {
		t.Errorf("at the end %v; want %d blocks live", all, leaked)
	}
	if pages.Frees < c.Evictions || pages.Allocations < c.Misses || pages.AllocatedBytes != pages.Allocations*pageSize || pages.LiveBlocks != leaked {
		t.Errorf("%v of pages; the cache has %+v", pages, c)
	}
	var sum int64
	for _, purpose := range []string{forPages, forIndex, forMemtable} {
		s := r.Purposes[purpose]
		sum += s.AllocatedBytes
		if s.Allocations == 0 || s.PeakBytes == 0 || s.PeakBytes > limit || purpose != forPages && s.LiveBytes != 0 {
			t.Errorf("%s: %v", purpose, s)
		}
	}
	if sum != all.AllocatedBytes || len(r.Purposes) != 3 {
		t.Errorf("%d bytes allocated by purpose, in all %v", sum, all)
	}
	if all.PeakBytes-all.PeakBound > limit || r.Busy.LiveBytes > limit || r.Busy.LiveBytes < limit-limit/8 {
		t.Errorf("the limit is %d; live after the last operation %v", limit, r.Busy)
	}
	if r.Leaks.Blocks != leaked || len(r.Leaks.Foreign) != 0 {
		t.Errorf("leaks: %v", r.Leaks)
	}
}

func TestProgram(t *testing.T) {
	n, flag := ops()
	file := filepath.Join(t.TempDir(), "trace.json")
	r := runJSON(t, flag, "-trace", file)
	wantCounts(t, r, n, 0)
	wantTrace(t, jaegertest.ReadFile(t, file), r)
}

// TestUniform: with pages that are used alike, memory for a quarter of them serves a quarter of the uses.
func TestUniform(t *testing.T) {
	r := runJSON(t, "-uniform", "-ops=40000", "-size=8", "-limit=2", "-goroutines=3", "-writes=50", "-seed=7")
	if rate := r.hitRate(); rate < 0.1 || rate > 0.5 || r.End.LiveBytes != 0 || r.Purposes[forPages].PeakBytes > 2*mib {
		t.Errorf("%.2f are hits; %v", rate, r.End)
	}
}

// TestLeak: the page that was pinned and forgotten is found, with the calls that did it.
func TestLeak(t *testing.T) {
	r := runJSON(t, "-leak", "-ops=30000")
	wantCounts(t, r, 30000, 1)
	if len(r.Leaks.Sites) != 1 {
		t.Fatalf("leaks: %v", r.Leaks)
	}
	site := r.Leaks.Sites[0]
	var calls []string
	for _, f := range site.Stack {
		calls = append(calls, f.Function)
	}
	if text := strings.Join(calls, " "); site.Bytes != 4096 || site.Owner != forPages || !strings.Contains(text, "work).forget ") || !strings.Contains(text, "session).pin ") {
		t.Errorf("%d bytes of %q, by %s", site.Bytes, site.Owner, text)
	}
	code, stdout, _ := runProgram(t, "-leak", "-ops=1000", "-size=1", "-limit=2")
	for _, want := range []string{`leak: 1 block of 4096 B of "cache" is still pinned`, "work).forget (work.go:", "\ncache ", "\nindex ", "\nmemtable ", "% hits"} {
		if code != 0 || !strings.Contains(stdout, want) {
			t.Errorf("exit code %d; %q is missing in\n%s", code, want, stdout)
		}
	}
}

// TestGoHeapProgram: the same without this library does the same, and nothing of it is seen.
func TestGoHeapProgram(t *testing.T) {
	r := runJSON(t, "-heap", "-ops=30000")
	if rate := r.hitRate(); rate < 0.6 || r.Reads+r.Writes != 30000 || r.End.Allocations != 0 || len(r.Purposes) != 0 || r.Trace.ID != "" {
		t.Errorf("%.2f are hits; %+v", rate, r)
	}
}

// TestPageSizes: the file and the memory are as well aligned for any of them.
func TestPageSizes(t *testing.T) {
	for _, page := range []string{"512", "8192", "65536"} {
		r := runJSON(t, "-page", page, "-ops=3000", "-size=4", "-limit=2", "-goroutines=2")
		if r.End.LiveBytes != 0 || r.Cache.Misses == 0 {
			t.Errorf("pages of %s: %v, %+v", page, r.End, r.Cache)
		}
	}
}

func TestBuffered(t *testing.T) {
	if r := runJSON(t, "-buffered", "-ops=3000", "-size=4"); r.Direct {
		t.Error("O_DIRECT was used")
	}
}

// TestFile: a file that has a name stays, and one that is there is not overwritten.
func TestFile(t *testing.T) {
	name := filepath.Join(t.TempDir(), "pages")
	runJSON(t, "-file", name, "-ops=1000", "-size=1")
	before, err := os.ReadFile(name)
	if err != nil || len(before) != mib+4096 {
		t.Fatalf("the file has %d bytes, %v", len(before), err)
	}
	if code, _, stderr := runProgram(t, "-file", name, "-ops=1000", "-size=1"); code != 1 || !strings.Contains(stderr, "name one that is not there yet") {
		t.Errorf("exit code %d, %s", code, stderr)
	}
	if after, err := os.ReadFile(name); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file has changed, %v", err)
	}
}

// TestNoDirect: where the kernel refuses pages of this size, the file is right all the same.
func TestNoDirect(t *testing.T) {
	const pageSize, count = 104, 37
	f, err := createFile(filepath.Join(t.TempDir(), "pages"), make([]byte, 10*pageSize), pageSize, count, true)
	if err != nil {
		t.Fatal(err)
	}
	if f.direct == (f.why != nil) {
		t.Errorf("O_DIRECT used: %v, %v", f.direct, f.why)
	}
	b := make([]byte, pageSize)
	for page := range uint32(count) {
		if err := f.readPage(page, b); err != nil {
			if f.direct { // the file system takes any size, and the reads must be aligned
				break
			}
			t.Fatal(err)
		}
		if generation, err := generationOf(b, page); err != nil || generation != 0 {
			t.Errorf("generation %d, %v", generation, err)
		}
	}
	if err := f.remove(); err != nil {
		t.Error(err)
	}
}

func TestUsage(t *testing.T) {
	for args, want := range map[string]string{
		"extra":            `unexpected argument "extra"`,
		"-page=1000":       "-page 1000: give a power of two from 512 to 1048576",
		"-size=0":          "-size 0: give 1 to 1048576",
		"-limit=0":         "-limit 0: give 1 or more",
		"-goroutines=0":    "-goroutines 0: give 1 to 4096",
		"-goroutines=4096": "-limit 16: give 17 or more",
		"-ops=-1":          "-ops -1: give 0 or more",
		"-writes=101":      "-writes 101: give 0 to 100",
		"-heap -leak":      "-heap observes nothing",
		"-nonsense":        "flag provided but not defined",
	} {
		if code, _, stderr := runProgram(t, strings.Fields(args)...); code != 2 || !strings.Contains(stderr, want) {
			t.Errorf("%s: exit code %d, %q; want %q", args, code, stderr, want)
		}
	}
	if code, _, stderr := runProgram(t, "-help"); code != 0 || !strings.Contains(stderr, "-goroutines") {
		t.Errorf("-help: exit code %d, %q", code, stderr)
	}
}

// TestInterrupted: Ctrl-C ends the operations, and nothing is left behind.
func TestInterrupted(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	var stdout, stderr bytes.Buffer
	if code := command(ctx, []string{"-ops=1000000", "-size=1"}, &stdout, &stderr); code != 130 || stdout.Len() > 0 {
		t.Errorf("exit code %d, %q, %q", code, stdout.String(), stderr.String())
	}
	if left, err := os.ReadDir(os.Getenv("TMPDIR")); err != nil || runtime.GOOS != "windows" && len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// wantTrace checks that the spans carry the bytes of their operations: those of all batches and of the end are the pages'.
func wantTrace(t *testing.T, trace jaegertest.Trace, r report) {
	t.Helper()
	roots, batches, closing := trace.Named("pagecache"), trace.Named("batch"), trace.Named("close")
	if len(roots) != 1 || len(closing) != 1 || int64(len(batches)) != (r.Reads+r.Writes+batch-1)/batch || len(trace) != len(batches)+2 {
		t.Fatalf("%d spans, of them %d batches of %d operations", len(trace), len(batches), r.Reads+r.Writes)
	}
	root, sums := roots[0], make(map[string]int64)
	for _, s := range append(batches, closing...) {
		if s.ParentID != root.SpanID || s.TraceID != r.Trace.ID || s.StatusCode == 2 || s.Resource["service.name"] != service {
			t.Errorf("span %+v of trace %s", s, r.Trace.ID)
		}
		for key, value := range s.Attributes {
			if n, ok := value.(int64); ok {
				sums[key] += n
			}
		}
	}
	for key, want := range map[string]int64{
		"pagecache.reads": r.Reads, "pagecache.writes": r.Writes, "allocator.failures": 0,
		"allocator.child.cache.allocated": r.Purposes[forPages].AllocatedBytes,
		"allocator.child.cache.freed":     r.Purposes[forPages].FreedBytes,
	} {
		if sums[key] != want {
			t.Errorf("%s is %d in all spans, want %d", key, sums[key], want)
		}
	}
	for key, want := range map[string]int64{
		"allocator.memory.allocated": r.End.AllocatedBytes,
		"allocator.memory.freed":     r.End.FreedBytes,
		"allocator.memory.net":       r.End.LiveBytes,
		"allocator.allocations":      r.End.Allocations,
		"allocator.frees":            r.End.Frees,
		"allocator.failures":         0,
	} {
		if root.Attributes[key] != want {
			t.Errorf("the root's %s is %v, want %d", key, root.Attributes[key], want)
		}
	}
}

// TestJaeger finds the spans of a run in a real Jaeger.
func TestJaeger(t *testing.T) {
	j := jaegertest.Start(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", j.HTTPEndpoint())
	r := runJSON(t, "-ops=200000")
	if r.Trace.Warning != "" || r.Trace.Endpoint != j.HTTPEndpoint() {
		t.Errorf("the trace is said to be in %+v", r.Trace)
	}
	wantCounts(t, r, 200_000, 0)
	wantTrace(t, j.Trace(r.Trace.ID, 22), r)
}

// TestJaegerDown: the program has done its work all the same, and says that the trace did not arrive.
func TestJaegerDown(t *testing.T) {
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
	r := runJSON(t, "-ops=1000", "-size=1")
	if !strings.Contains(r.Trace.Warning, "http://127.0.0.1:1") || r.End.LiveBytes != 0 {
		t.Errorf("%+v", r.Trace)
	}
}
