package alloctest

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

func TestMain(m *testing.M) { VerifyTestMain(m) }

// recorder is a test that only remembers what was reported to it.
type recorder struct {
	cleanups []func()
	errors   []string
	fatal    string
	dir      string
}

func (*recorder) Helper() {}

func (r *recorder) Cleanup(f func()) { r.cleanups = append(r.cleanups, f) }

func (r *recorder) Errorf(format string, args ...any) {
	r.errors = append(r.errors, fmt.Sprintf(format, args...))
}

func (r *recorder) Fatalf(format string, args ...any) {
	r.fatal = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

// ended runs what may end in a Fatalf.
func ended(f func()) {
	var done sync.WaitGroup
	done.Go(f)
	done.Wait()
}

// end cleans up as a test does that ends.
func (r *recorder) end() {
	for i := len(r.cleanups) - 1; i >= 0; i-- {
		r.cleanups[i]()
	}
}

// keeping is a recorder with a folder for artifacts.
type keeping struct{ recorder }

func (k *keeping) ArtifactDir() string { return k.dir }

//go:noinline
func leak(t *testing.T, p blockalloc.Allocator, size uintptr) blockalloc.Block {
	t.Helper()
	b, err := p.Allocate(blockalloc.Layout{Size: size, Align: 8})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestNoLeak(t *testing.T) {
	var r recorder
	p := New(&r)
	if err := p.Free(leak(t, p, 100)); err != nil {
		t.Fatal(err)
	}
	r.end()
	if len(r.errors) != 0 || r.fatal != "" {
		t.Errorf("without a leak: %q, %q", r.errors, r.fatal)
	}
	if _, err := p.Allocate(blockalloc.BlockLayout(64)); !errors.Is(err, blockalloc.ErrClosed) {
		t.Errorf("after the test its Proxy allocates: %v", err)
	}
	if Profile(p) != nil {
		t.Error("the Proxy is remembered after its test")
	}
}

func TestLeak(t *testing.T) {
	setDebug(t, "")
	const sites = `( {2}.* in .*\n)+`
	for name, c := range map[string]struct {
		opts []Option
		want string
	}{
		"full": {nil, `^alloctest: Proxy has leaked 8.59 KiB in 3 blocks
8.59 KiB in 3 blocks are live:
  8 KiB in 2 blocks of 4 KiB: alloctest.leak \(alloctest_test.go:\d+\), alloctest.TestLeak.func\d+ \(alloctest_test.go:\d+\); the oldest is \S+ old
  600 B in 1 block of 600 B: alloctest.leak \(alloctest_test.go:\d+\), alloctest.TestLeak.func\d+ \(alloctest_test.go:\d+\); \S+ old
$`},
		"off": {[]Option{WithStacks(Off), WithProxy(alloctrace.WithName("index"))}, `^alloctest: Proxy "index" has leaked 8.59 KiB in 3 blocks
  1 block of up to 1 KiB
  2 blocks of up to 4 KiB
$`},
		"sampled": {[]Option{WithStacks(Sampled)}, `^alloctest: Proxy has leaked 8.59 KiB in 3 blocks
(  1 block of up to 1 KiB
  2 blocks of up to 4 KiB
|about .*:\n` + sites + `)$`},
	} {
		t.Run(name, func(t *testing.T) {
			var r recorder
			p := New(&r, c.opts...)
			var held []blockalloc.Block
			for range 2 {
				held = append(held, leak(t, p, 4096))
			}
			held = append(held, leak(t, p, 600))
			r.end()
			if len(r.errors) != 1 || !regexp.MustCompile(c.want).MatchString(r.errors[0]) {
				t.Errorf("%q\nwant %s", r.errors, c.want)
			}
			for _, b := range held {
				if err := p.Free(b); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

//go:noinline
func release(t *testing.T, a blockalloc.Allocator, b blockalloc.Block) {
	t.Helper()
	if err := a.Free(b); err != nil {
		t.Fatal(err)
	}
}

// TestForeignFree: a block that was freed through another Proxy or child fails the test of the one
// that has freed it, and is a leak of the one that has allocated it, which says why.
func TestForeignFree(t *testing.T) {
	setDebug(t, "")
	const (
		freed     = `^alloctest: Proxy "mem" or a child has freed what is not its own\nnothing is live\n1 block was freed through another Proxy or child than the one that allocated it, and the numbers of both are wrong:\n  64 B at 0x[0-9a-f]+: allocated `
		here      = `by alloctest.leak \(alloctest_test.go:\d+\), alloctest.TestForeignFree.func`
		now       = ` by alloctest.release \(alloctest_test.go:\d+\), alloctest.TestForeignFree.func`
		leaked    = `^alloctest: Proxy "mem" has leaked 64 B in 1 block\n64 B in 1 block is live:\n.*\n`
		pastDebug = `1 block of them: freed without this Proxy, such as through another one\n$`
		past      = `leaked, or freed without this Proxy, such as through another one\n$`
	)
	child := func(p *alloctrace.Proxy) blockalloc.Allocator { return p.Child("index") }
	itself := func(p *alloctrace.Proxy) blockalloc.Allocator { return p }
	unhooked := func(p *alloctrace.Proxy) blockalloc.Allocator { return alloctrace.Wrap(p.Unwrap()) }
	heap := []Option{WithAllocator(new(blockalloc.Heap))}
	for name, c := range map[string]struct {
		opts           []Option
		allocate, free func(p *alloctrace.Proxy) blockalloc.Allocator
		want           string // of the test, "" for nothing
	}{
		"parent":               {nil, child, itself, freed + `through Proxy "mem", child "index", ` + here + `.*; freed through Proxy "mem"` + now},
		"child":                {nil, itself, child, freed + `through Proxy "mem" ` + here + `.*; freed through Proxy "mem", child "index",` + now},
		"sampled":              {[]Option{WithStacks(Sampled)}, child, itself, ""},
		"off":                  {[]Option{WithStacks(Off)}, child, itself, ""},
		"nobody":               {nil, unhooked, itself, `or a child has freed what is not its own\n(.*\n)+.*: allocated through no Proxy that is observed; freed through Proxy "mem"` + now},
		"another Proxy":        {nil, itself, unhooked, leaked + pastDebug},
		"another, no debug":    {heap, itself, unhooked, leaked + past},
		"another, no stacks":   {append(heap[:1:1], WithStacks(Off)), itself, unhooked, `^alloctest: Proxy "mem" has leaked 64 B in 1 block\n  1 block of up to 64 B\n` + past},
		"another test's Proxy": {heap, itself, func(*alloctrace.Proxy) blockalloc.Allocator { return nil }, leaked + past},
	} {
		t.Run(name, func(t *testing.T) {
			var r, q recorder
			mem := New(&r, append(c.opts, WithProxy(alloctrace.WithName("mem")))...)
			by := c.free(mem)
			if by == nil {
				by = New(&q, append(c.opts, WithProxy(alloctrace.WithName("other")))...)
			}
			release(t, by, leak(t, c.allocate(mem), 64))
			q.end()
			r.end()
			if c.want == "" && len(r.errors) != 0 || c.want != "" && (len(r.errors) != 1 || !regexp.MustCompile(c.want).MatchString(r.errors[0])) {
				t.Errorf("the test is told %q\nwant %s", r.errors, c.want)
			}
			if want := `Proxy "other" or a child has freed what is not its own`; name == "another test's Proxy" && (len(q.errors) != 1 || !strings.Contains(q.errors[0], want)) {
				t.Errorf("the other test is told %q", q.errors)
			}
		})
	}
}

// TestArtifacts: where the test keeps artifacts, there is the whole report.
func TestArtifacts(t *testing.T) {
	k := keeping{recorder{dir: t.TempDir()}}
	p := New(&k)
	b := leak(t, p, 4096)
	k.end()
	text := read(t, k.dir, "leaks-*.txt")
	if !strings.Contains(text, k.errors[0]) || !strings.Contains(text, "heap profile: 1: 4096 ") || !strings.Contains(text, "alloctest.TestArtifacts\t") {
		t.Errorf("the text is\n%s", text)
	}
	var report heapprofile.Report
	if err := json.Unmarshal([]byte(read(t, k.dir, "leaks-*.json")), &report); err != nil || report.Bytes != 4096 || len(report.Sites[0].Stack) != 2 {
		t.Errorf("the JSON is %+v: %v", report, err)
	}
	k.errors, k.dir = nil, filepath.Join(k.dir, "missing")
	VerifyNone(&k, p) // its stacks are forgotten by now
	if len(k.errors) != 1 || !strings.Contains(k.errors[0], "1 block of up to 4 KiB") {
		t.Errorf("after the test: %q", k.errors)
	}
	if err := p.Free(b); err != nil {
		t.Error(err)
	}

	for dir, fails := range map[string]bool{"no\x00name": true, filepath.Join(t.TempDir(), "gone"): false} {
		k = keeping{recorder{dir: dir}}
		p = New(&k)
		b = leak(t, p, 4096)
		k.end()
		if len(k.errors) != 1 || !strings.Contains(k.errors[0], "4 KiB in 1 block") || strings.Contains(k.errors[0], "the whole report could not be written: ") != fails {
			t.Errorf("in %q: %q, want it to fail: %t", dir, k.errors, fails)
		}
		if err := p.Free(b); err != nil {
			t.Error(err)
		}
	}
}

func read(t *testing.T, dir, pattern string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, pattern))
	if err != nil || len(files) != 1 {
		t.Fatalf("%s: %q, %v", pattern, files, err)
	}
	content, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	return string(content)
}

// TestParallel: tests that run at once see their own leaks alone.
func TestParallel(t *testing.T) {
	inner := new(blockalloc.Heap)
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			var r recorder
			p := New(&r, WithAllocator(inner))
			var held []blockalloc.Block
			for range i {
				held = append(held, leak(t, p, 64))
			}
			r.end()
			want := fmt.Sprintf("in %s\n", blocks(int64(i)))
			if i == 0 && len(r.errors) != 0 || i > 0 && (len(r.errors) != 1 || !strings.Contains(r.errors[0], want)) {
				t.Errorf("with %d blocks: %q", i, r.errors)
			}
			for _, b := range held {
				if err := p.Free(b); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestWithAllocator(t *testing.T) {
	p := New(t, WithAllocator(failing.After(new(blockalloc.Heap), 0)))
	if _, err := p.Allocate(blockalloc.BlockLayout(64)); !errors.Is(err, failing.ErrInjected) {
		t.Errorf("the allocator is another one: %v", err)
	}
}

// TestDebugReports: who asked for reports gets them too, and what comes when the
// test has ended is not reported.
func TestDebugReports(t *testing.T) {
	setDebug(t, "")
	var r recorder
	var got []*debug.Report
	p := New(&r, WithDebug(debug.Options{OnReport: func(r *debug.Report) { got = append(got, r) }}))
	inner, b := Debug(p), leak(t, p, 64)
	_, _ = p.Free(b), p.Free(b)
	if len(got) != 1 || len(r.errors) != 1 || r.errors[0] != fmt.Sprintf("alloctest: %v", got[0]) || got[0].Kind != debug.DoubleFree {
		t.Errorf("reports %v, and the test has %q", got, r.errors)
	}
	r.end()
	_ = inner.Free(b)
	if len(got) != 2 || len(r.errors) != 1 {
		t.Errorf("after the test reports %v, and the test has %q", got, r.errors)
	}
}

// stubborn takes no memory back.
type stubborn struct{ blockalloc.Heap }

func (*stubborn) Free(blockalloc.Block) error { return errors.New("not today") }

func TestAllocatorFailsToFree(t *testing.T) {
	setDebug(t, "")
	var r recorder
	p := New(&r, WithAllocator(new(stubborn)), WithDebug(debug.Options{}))
	if err := p.Free(leak(t, p, 64)); err != nil {
		t.Fatal(err)
	}
	r.end()
	if len(r.errors) != 1 || !strings.HasPrefix(r.errors[0], "alloctest: ") || !strings.Contains(r.errors[0], "not today") {
		t.Errorf("the test has %q", r.errors)
	}
}

// TestCheckInitialized: which of several allocations is read before it is written.
func TestCheckInitialized(t *testing.T) {
	var r recorder
	CheckInitialized(&r, func(mem *alloctrace.Proxy) string {
		b := leak(t, mem, 64)
		clear(b.Bytes())
		c := leak(t, mem, 32)
		clear(c.Bytes())
		c, err := mem.Reallocate(c, 48)
		if err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := errors.Join(mem.Free(b), mem.Free(c)); err != nil {
				t.Error(err)
			}
		}()
		return fmt.Sprint(b.Bytes()[63], c.Bytes()[31], c.Bytes()[32])
	})
	if len(r.errors) != 1 || !strings.Contains(r.errors[0], " it returns 0 0 0 where fresh memory is full of 0x00, and 0 0 205 where it is full of 0xcd\nallocation 3 of 3, of 48 B aligned to 8, by\n\talloctest_test.go:") {
		t.Errorf("the test has %q", r.errors)
	}
	r.errors = nil
	CheckInitialized(&r, func(mem *alloctrace.Proxy) []byte {
		b := leak(t, mem, 64)
		clear(b.Bytes())
		return slices.Clone(b.Bytes())
	})
	CheckInitialized(&r, func(mem *alloctrace.Proxy) []byte {
		b, err := mem.Allocate(blockalloc.Layout{Size: 64, Align: 1, Zeroed: true})
		if err == nil {
			b, err = mem.Reallocate(b, 96)
		}
		if err != nil {
			t.Fatal(err)
		}
		return slices.Clone(b.Bytes())
	})
	if len(r.errors) != 0 {
		t.Errorf("where all is written first, or asked for as zeros: %q", r.errors)
	}
}

func TestAsserts(t *testing.T) {
	p := New(t)
	b := leak(t, p, 100)
	var r recorder
	AssertLive(&r, p, 100, 1)
	AssertDelta(&r, p, Delta{-100, -1}, func() {
		if err := p.Free(b); err != nil {
			t.Error(err)
		}
	})
	if len(r.errors) != 0 {
		t.Errorf("what is true fails: %q", r.errors)
	}
	AssertLive(&r, p, 100, 1)
	AssertLive(&r, p, 0, 1)
	AssertDelta(&r, p, Delta{Bytes: 1}, func() {})
	want := []string{
		"alloctest: 0 bytes in 0 blocks are live, want 100 in 1",
		"alloctest: 0 bytes in 0 blocks are live, want 0 in 1",
		"alloctest: what is live has grown by 0 bytes in 0 blocks, want 1 in 0",
	}
	if fmt.Sprint(r.errors) != fmt.Sprint(want) {
		t.Errorf("%q, want %q", r.errors, want)
	}
}

func TestAllocsPerRun(t *testing.T) {
	t.Parallel() // as testing.AllocsPerRun does not allow
	p := New(t)
	calls := 0
	got := AllocsPerRun(p, 4, func() {
		if calls++; calls%2 == 0 {
			b, err := p.Reallocate(leak(t, p, 64), 128)
			if err != nil {
				t.Fatal(err)
			}
			if err := p.Free(b); err != nil {
				t.Fatal(err)
			}
		}
	})
	if got != 1 || calls != 5 {
		t.Errorf("%v allocations a run in %d calls, want 1 in 5", got, calls)
	}
	defer func() {
		if text := fmt.Sprint(recover()); !strings.HasPrefix(text, "alloctest: AllocsPerRun of 0 calls: ") {
			t.Errorf("of no runs: %q", text)
		}
	}()
	AllocsPerRun(p, 0, func() {})
}

func TestReportMetrics(t *testing.T) {
	if testing.Short() {
		benchtime := flag.Lookup("test.benchtime").Value
		before := benchtime.String()
		t.Cleanup(func() { _ = benchtime.Set(before) })
		if err := benchtime.Set("1000x"); err != nil {
			t.Fatal(err)
		}
	}
	result := testing.Benchmark(func(b *testing.B) {
		p := New(b)
		for b.Loop() {
			x, err := p.Allocate(blockalloc.BlockLayout(4096))
			if err == nil {
				x, err = p.Reallocate(x, 100)
			}
			if err == nil {
				err = p.Free(x)
			}
			if err != nil {
				b.Fatal(err)
			}
		}
		ReportMetrics(b, p)
	})
	for name, want := range map[string]float64{"offheap-B/op": 4196, "offheap-allocs/op": 2, "offheap-peak-B": 4096} {
		if got := result.Extra[name]; got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

// tests is a testing.M.
type tests struct {
	code int
	run  func()
}

func (m tests) Run() int {
	m.run()
	return m.code
}

func TestVerifyMain(t *testing.T) {
	p := New(t)
	pool := new(blockalloc.Pool)
	var held, pooled blockalloc.Block
	hold := func() {
		held = leak(t, p, 64)
		var err error
		if pooled, err = pool.Allocate(blockalloc.BlockLayout(4096)); err != nil {
			t.Fatal(err)
		}
	}
	var w bytes.Buffer
	if code := verifyMain(tests{7, hold}, &w, pool, []*alloctrace.Proxy{p}); code != 7 || w.Len() != 0 {
		t.Errorf("tests that fail end with %d, and %q", code, w.String())
	}
	if code := verifyMain(tests{0, func() {}}, &w, pool, []*alloctrace.Proxy{p}); code != 1 ||
		!strings.Contains(w.String(), "Proxy has leaked 64 B in 1 block\n") || !strings.Contains(w.String(), "blockalloc.Default() has leaked "+counter.FormatBytes(int64(pooled.Size()))+" in 1 block\n") {
		t.Errorf("with leaks they end with %d, and %q", code, w.String())
	}
	if err := errors.Join(p.Free(held), pool.Free(pooled)); err != nil {
		t.Fatal(err)
	}
	w.Reset()
	if code := verifyMain(tests{0, func() {}}, &w, pool, []*alloctrace.Proxy{p}); code != 0 || w.Len() != 0 {
		t.Errorf("without they end with %d, and %q", code, w.String())
	}
	if err := pool.Close(); err != nil {
		t.Error(err)
	}
}

// TestPeakIsExact: to the byte, as tests want it.
func TestPeakIsExact(t *testing.T) {
	p := New(t)
	for range 1000 {
		if err := p.Free(leak(t, p, 4096)); err != nil {
			t.Fatal(err)
		}
	}
	if s := p.Stats(); s.PeakBytes != 4096 || s.PeakBound != 0 {
		t.Errorf("%v; want a peak of 4096 bytes", s)
	}
	var _ counter.Source = p
}
