package blackbox

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/hooks/ring"
	"github.com/alloctrace/alloctrace/internal/measure"
	"github.com/alloctrace/alloctrace/internal/pages"
	"github.com/alloctrace/alloctrace/internal/process"
)

var requireAll = os.Getenv("ALLOCTRACE_REQUIRE_ALL") == "1"

// newPath returns a path in a folder of its own. Windows cannot remove a file while it is mapped.
func newPath(t *testing.T) string {
	t.Helper()
	if !pages.Supported {
		t.Skip("no memory can be shared with files on this platform")
	}
	if runtime.GOOS != "windows" {
		return filepath.Join(t.TempDir(), "test.box")
	}
	dir, err := os.MkdirTemp("", "blackbox-*")
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "test.box")
}

func newTestBox(t *testing.T, path string, o Options) *Box {
	t.Helper()
	b, err := Create(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := b.Close(); err != nil {
			t.Error(err)
		}
	})
	return b
}

func mustOpen(t *testing.T, path string) *Contents {
	t.Helper()
	c, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestBox: a file has what was observed, what is live, the peak, the numbers and the build.
func TestBox(t *testing.T) {
	path := newPath(t)
	profile := heapprofile.New(heapprofile.Options{Rate: 1, Peak: true})
	before := time.Now()
	b := newTestBox(t, path, Options{Profile: profile, Period: time.Hour, Clock: ring.PreciseClock()})
	mem := alloctrace.Wrap(blockalloc.NewLimit(new(blockalloc.Heap), 1<<20), alloctrace.WithName("all"), alloctrace.WithHooks(profile, b))
	b.Watch(mem)
	b.Watch(mem)
	cache := mem.Child("cache")
	kept, err := cache.Allocate(blockalloc.BlockLayout(4096))
	if err != nil {
		t.Fatal(err)
	}
	gone, err := mem.Allocate(blockalloc.BlockLayout(64 << 10))
	if err != nil {
		t.Fatal(err)
	}
	_, failure := cache.Allocate(blockalloc.BlockLayout(2 << 20))
	if err := mem.Free(gone); err != nil || failure == nil {
		t.Fatal(err, failure)
	}
	b.Flush()
	running := mustOpen(t, path)
	if !running.Closed.IsZero() || len(running.Damage) != 0 {
		t.Errorf("the file of a Box that is open was closed at %v and has the damage %q", running.Closed, running.Damage)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if b.Close() != nil {
		t.Error("a second Close fails")
	}
	c := mustOpen(t, path)
	within := func(what string, at time.Time) {
		if at.Before(before) || at.After(time.Now()) {
			t.Errorf("%s is of %v, the test began at %v", what, at, before)
		}
	}
	within("Created", c.Created)
	within("Closed", c.Closed)
	within("Written", c.Written)
	if len(c.Damage) != 0 || c.PID != os.Getpid() || c.Omitted != 0 {
		t.Errorf("damage %q, PID %d and %d omitted; want none, %d and none", c.Damage, c.PID, c.Omitted, os.Getpid())
	}
	want := []Event{
		{Kind: alloctrace.Allocated, Addr: uint64(kept.Addr()), Size: 4096, Align: 4096, Child: "cache"},
		{Kind: alloctrace.Allocated, Addr: uint64(gone.Addr()), Size: 64 << 10, Align: 64 << 10},
		{Kind: alloctrace.AllocateFailed, Size: 2 << 20, Align: 2 << 20, Child: "cache", Err: failure.Error()},
		{Kind: alloctrace.Freeing, Addr: uint64(gone.Addr()), Size: 64 << 10, Align: 64 << 10},
	}
	for i := range c.Events {
		within("an event", c.Events[i].Time)
		c.Events[i].Time = time.Time{}
	}
	if !slices.Equal(c.Events, want) || c.Gapless != 0 {
		t.Errorf("events from %d on:\n%+v, want from 0 on\n%+v", c.Gapless, c.Events, want)
	}
	if len(c.Live.Sites) != 1 || c.Live.Bytes != 4096 || c.Live.Blocks != 1 || c.Live.Rate != 1 {
		t.Fatalf("live are %+v, want a block of 4096 bytes", c.Live)
	}
	site := c.Live.Sites[0]
	if f := site.Stack[0]; !strings.HasSuffix(f.Function, "blackbox.TestBox") || filepath.Base(f.File) != "box_test.go" || f.Line == 0 || f.PC == 0 {
		t.Errorf("it was allocated by %+v, want this test", f)
	}
	if !slices.Equal(site.Labels, []Label{{"allocator", "cache"}}) {
		t.Errorf("its labels are %q", site.Labels)
	}
	if c.Peak.Bytes != 68<<10 || len(c.Peak.Sites) != 2 || c.Peak.Sites[0].Bytes != 64<<10 {
		t.Errorf("the peak is %+v, want 68 KiB in two blocks", c.Peak)
	}
	within("the peak", c.Peak.Time)
	if len(c.Proxies) != 2 || c.Proxies[0].Name != "all" || c.Proxies[0].Stats != mem.Stats() ||
		c.Proxies[1].Child != "cache" || c.Proxies[1].Stats != cache.Stats() {
		t.Errorf("the numbers are %+v", c.Proxies)
	}
	if c.Build.Go != runtime.Version() || c.Build.Settings["GOARCH"] != runtime.GOARCH || c.Build.Executable == "" {
		t.Errorf("the build is %+v", c.Build)
	}

	more, err := mem.Allocate(blockalloc.BlockLayout(64)) // after Close
	if err == nil {
		err = errors.Join(mem.Free(more), mem.Free(kept))
	}
	if err != nil {
		t.Error(err)
	}
	if after := mustOpen(t, path); runtime.GOOS != "windows" && len(after.Events) != len(want) {
		t.Errorf("after Close the file has %d events, and had %d", len(after.Events), len(want))
	}
}

// TestCreate: a box is kept as the old one, unless it is in use; other files are left alone.
func TestCreate(t *testing.T) {
	path := newPath(t)
	event := func(size uintptr) alloctrace.Event {
		return alloctrace.Event{Kind: alloctrace.Allocated, Addr: 64, Size: size, Align: 1}
	}
	first := newTestBox(t, path, Options{})
	first.Observe(t.Context(), event(1), nil)
	if _, err := Create(path, Options{}); !errors.Is(err, ErrInUse) || !strings.HasPrefix(err.Error(), "blackbox: Create: ") {
		t.Errorf("a second Box of a file: %v, want ErrInUse", err)
	}
	for size := uintptr(1); size <= 3 && runtime.GOOS != "windows"; size++ { // where a path is in use until the process ends
		if err := first.Close(); err != nil {
			t.Fatal(err)
		}
		first = newTestBox(t, path, Options{})
		first.Observe(t.Context(), event(size+1), nil)
		if old := mustOpen(t, path+".old"); len(old.Events) != 1 || old.Events[0].Size != uint64(size) {
			t.Errorf("the old file has %+v, want a block of %d bytes", old.Events, size)
		}
		if now := mustOpen(t, path); len(now.Events) != 1 || now.Events[0].Size != uint64(size+1) {
			t.Errorf("the file has %+v, want a block of %d bytes", now.Events, size+1)
		}
	}

	other := filepath.Join(filepath.Dir(path), "other")
	for _, content := range []string{"a", "something else"} {
		if err := os.WriteFile(other, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Create(other, Options{}); err == nil || !strings.Contains(err.Error(), "has other content than a black box: use another path") {
			t.Errorf("a Box in place of another file: %v", err)
		}
		if got, _ := os.ReadFile(other); string(got) != content {
			t.Errorf("the other file has %q now, and had %q", got, content)
		}
	}
	if err := os.WriteFile(other, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	newTestBox(t, other, Options{}) // an empty one is nobody's

	for _, size := range []int64{-1, 1, minSize - 1, maxSize + 1} {
		if _, err := Create(filepath.Join(filepath.Dir(path), "sizes"), Options{Size: size}); err == nil || !strings.Contains(err.Error(), fmt.Sprint("Options.Size is ", size)) {
			t.Errorf("a size of %d: %v", size, err)
		}
	}
	if _, err := Create(filepath.Join(path, "below a file"), Options{}); err == nil {
		t.Error("a Box below a file was made")
	}
	if _, err := os.Stat(filepath.Join(filepath.Dir(path), "sizes")); err == nil {
		t.Error("a Box that was not made has left a file")
	}
}

// TestUnsupported: where no memory can be shared with files, the error says so.
func TestUnsupported(t *testing.T) {
	if pages.Supported {
		return // it can
	}
	if _, err := Create("test.box", Options{}); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("%v, want errors.ErrUnsupported", err)
	}
}

// TestSizes: a file has the size that was asked for or less, and the events of each processor are the last ones.
func TestSizes(t *testing.T) {
	for _, size := range []int64{minSize, 1<<20 + 5000, defaultSize, 32 << 20} {
		for _, shards := range []int{2, 9, 65} {
			l, err := newLayout(size, shards)
			if err != nil {
				t.Fatal(err)
			}
			if n := uint64(size); l.size > n+granularity || l.size < n*2/5 || l.size%granularity != 0 {
				t.Errorf("of %d bytes for %d shards, %d are used", size, shards, l.size)
			}
			parsed, whole, err := parseHeader(l.header())
			if err != nil || !whole || parsed != l {
				t.Errorf("%+v was read as %+v, %v, %v", l, parsed, whole, err)
			}
		}
	}
	if _, err := newLayout(minSize, 5000); err == nil || !strings.Contains(err.Error(), "use 524288 or more") {
		t.Errorf("events of 5000 processors in 256 KiB: %v", err)
	}
}

// TestTooMuch: what the file has no room for is counted, and what it has is whole.
func TestTooMuch(t *testing.T) {
	profile := heapprofile.New(heapprofile.Options{Rate: 1, Peak: true})
	b := onHeap(t, Options{Size: 2 * minSize, Profile: profile})
	mem := alloctrace.Wrap(new(blockalloc.Heap), alloctrace.WithHooks(profile, b))
	b.Watch(mem)
	long := strings.Repeat("x", 2000)
	const children, failures = 500, 100
	for i := range children {
		block, err := mem.Child(fmt.Sprint(i, long)).Allocate(blockalloc.BlockLayout(1 << (i % 12)))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = mem.Free(block) }()
	}
	for i := range failures {
		b.Observe(t.Context(), alloctrace.Event{Kind: alloctrace.FreeFailed, Addr: uintptr(i), Size: math.MaxUint, Align: 3}, errors.New(fmt.Sprint(i, long)))
	}
	b.Observe(t.Context(), alloctrace.Event{Kind: alloctrace.FreeFailed, Addr: failures}, panics{})
	b.Flush()
	c := b.read(t)
	sites := len(c.Live.Sites) + c.Live.Omitted
	if len(c.Damage) != 0 || c.Omitted == 0 || c.Live.Omitted == 0 || c.Peak.Omitted == 0 || sites != children || len(c.Live.Sites) == 0 || len(c.Peak.Sites) == 0 || c.Build.Go == "" {
		t.Errorf("damage %q, %d numbers omitted; of live sites %d are there, of %d; of those at the peak %d, and %d omitted",
			c.Damage, c.Omitted, len(c.Live.Sites), sites, len(c.Peak.Sites), c.Peak.Omitted)
	}
	names, forgotten := make(map[string]bool), 0
	for _, e := range c.Events {
		switch {
		case e.Kind == alloctrace.Allocated:
			names[e.Child] = true
			if len(e.Child) > maxName || !strings.HasSuffix(e.Child, "xx…") {
				t.Errorf("the child is %q", e.Child)
			}
		case e.Err == ring.ErrForgotten.Error():
			forgotten++
		case e.Addr == failures:
			if e.Err != "the error's text cannot be had: not today" {
				t.Errorf("an error whose method panics has the text %q", e.Err)
			}
		default:
			if n := len(e.Err); n < 700 || n > overflowSize || !strings.HasPrefix(e.Err, fmt.Sprint(e.Addr, "x")) || e.Size != math.MaxUint || e.Align != 3 {
				t.Errorf("a failure is %+v", e)
			}
		}
	}
	if roomy := b.shared.events > children+failures; forgotten < failures-64 || roomy && len(names) < 80 {
		t.Errorf("%d names and %d forgotten events", len(names), forgotten)
	}
}

type panics struct{}

func (panics) Error() string { panic("not today") }

func TestWatchRefuses(t *testing.T) {
	defer func() {
		if text, _ := recover().(string); !strings.HasPrefix(text, "blackbox: Watch(nil): pass ") {
			t.Errorf("Watch(nil) panics with %q", text)
		}
	}()
	onHeap(t, Options{}).Watch(nil)
}

// TestNoAllocations: an event costs nothing on the Go heap, and neither does one of a child.
func TestNoAllocations(t *testing.T) {
	b := onHeap(t, Options{Period: time.Hour})
	p := alloctrace.Wrap(measure.NewInner(), alloctrace.WithHooks(b))
	for _, a := range []*alloctrace.Proxy{p, p.Child("child")} {
		measure.WantAllocs(t, 0, func() {
			block, _ := a.Allocate(blockalloc.BlockLayout(4096))
			_ = a.Free(block)
		})
	}
}

// TestUsage: the file is not in what is on the Go heap.
func TestUsage(t *testing.T) {
	b := onHeap(t, Options{Period: time.Hour})
	for n := range 4000 {
		e, err := numbered(0, n)
		b.Observe(t.Context(), e, err)
	}
	if u := b.Usage(); u.Events != 4000 || u.Bytes < 1000 || u.Bytes > 100_000 {
		t.Errorf("the usage is %+v", u)
	}
}

// TestBuildID: the build ID is the one that the go command knows.
func TestBuildID(t *testing.T) {
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	if !process.CanStart(t) {
		return
	}
	want, err := exec.Command("go", "tool", "buildid", path).Output()
	if err != nil {
		if requireAll && runtime.GOOS == "linux" {
			t.Fatalf("the build ID is asked for with the go command: %v", err)
		}
		t.Skip("the build ID is asked for with the go command: put it on PATH")
	}
	if got := buildID(path); got != strings.TrimSpace(string(want)) || got == "" {
		t.Errorf("the build ID is %q, want %q", got, want)
	}
	if got := buildIDIn([]byte("MZ\x90\xff Go build ID: \"a/b\"\n \xff")); got != "a/b" {
		t.Errorf("the build ID before the text is %q", got)
	}
}

// TestPeriod: the box writes by itself.
func TestPeriod(t *testing.T) {
	b := onHeap(t, Options{Period: time.Millisecond})
	generation := func() uint64 {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.generation
	}
	for begin, deadline := generation(), time.Now().Add(time.Minute); generation() < begin+3; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("nothing is written for a minute")
		}
	}
}

// onHeap returns a Box whose memory is on the Go heap, where the race detector sees it.
func onHeap(t testing.TB, o Options) *Box {
	t.Helper()
	size := o.Size
	if size == 0 {
		size = defaultSize
	}
	return onHeapOf(t, size, o)
}

func observe(h alloctrace.Hook, e alloctrace.Event, err error) {
	h.Observe(context.Background(), e, err)
}
