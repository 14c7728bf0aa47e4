package hooks_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks"
)

// recorder keeps the kinds that it observes.
type recorder struct{ kinds []alloctrace.Kind }

func (r *recorder) Observe(_ context.Context, e alloctrace.Event, _ error) {
	r.kinds = append(r.kinds, e.Kind)
}

func observe(h alloctrace.Hook, events ...alloctrace.Event) {
	for _, e := range events {
		h.Observe(context.Background(), e, nil)
	}
}

func TestTee(t *testing.T) {
	var observed []string
	hook := func(name string) alloctrace.Hook {
		return alloctrace.HookFunc(func(_ context.Context, e alloctrace.Event, _ error) {
			observed = append(observed, name+" "+e.Kind.String())
		})
	}
	observe(hooks.Tee(hook("a"), nil, hook("b"), hook("c")), alloctrace.Event{Kind: alloctrace.Freeing}, alloctrace.Event{Kind: alloctrace.FreeFailed})
	want := []string{"a freeing", "b freeing", "c freeing", "a free failed", "b free failed", "c free failed"}
	if !slices.Equal(observed, want) {
		t.Errorf("observed %q, want %q", observed, want)
	}
	observe(hooks.Tee(), alloctrace.Event{})
}

// TestContext: the context and the error go on to the next hook as they came.
func TestContext(t *testing.T) {
	type key struct{}
	observed := 0
	next := alloctrace.HookFunc(func(ctx context.Context, _ alloctrace.Event, err error) {
		observed++
		if ctx.Value(key{}) != "mine" || err != blockalloc.ErrLimit {
			t.Errorf("observed with context %v and error %v, want those of the event", ctx, err)
		}
	})
	hook := hooks.Tee(next, hooks.Filter(next, hooks.MinSize(1)), hooks.Sample(next, 1), hooks.NewMeter(next))
	hook.Observe(context.WithValue(t.Context(), key{}, "mine"), alloctrace.Event{Kind: alloctrace.AllocateFailed, Size: 64}, blockalloc.ErrLimit)
	if observed != 4 {
		t.Errorf("observed %d times, want 4", observed)
	}
}

func TestFilter(t *testing.T) {
	events := []alloctrace.Event{
		{Kind: alloctrace.Allocated, Size: 64},
		{Kind: alloctrace.Allocated, Size: 4096},
		{Kind: alloctrace.Reallocating, Size: 4096},
		{Kind: alloctrace.ReallocateFailed, Size: 4096},
		{Kind: alloctrace.Freeing, Size: 64},
		{Kind: alloctrace.FreeFailed, Size: 64},
	}
	for name, c := range map[string]struct {
		predicates []hooks.Predicate
		want       []int
	}{
		"none":     {nil, []int{0, 1, 2, 3, 4, 5}},
		"failures": {[]hooks.Predicate{hooks.Failures}, []int{3, 5}},
		"kinds":    {[]hooks.Predicate{hooks.Kinds(alloctrace.Allocated, alloctrace.FreeFailed)}, []int{0, 1, 5}},
		"size":     {[]hooks.Predicate{hooks.MinSize(65)}, []int{1, 2, 3}},
		"both":     {[]hooks.Predicate{hooks.MinSize(4096), hooks.Failures}, []int{3}},
	} {
		t.Run(name, func(t *testing.T) {
			var observed recorder
			f := hooks.Filter(&observed, c.predicates...)
			for i, e := range events {
				before := len(observed.kinds)
				observe(f, e)
				want := 0
				for _, w := range c.want {
					if w == i {
						want = 1
					}
				}
				if got := len(observed.kinds) - before; got != want {
					t.Errorf("event %d (%v, %d bytes) was handed on %d times, want %d", i, e.Kind, e.Size, got, want)
				}
			}
		})
	}
}

// TestSample: of events that alternate, each kind is handed on at its own rate, and no
// failure is lost.
func TestSample(t *testing.T) {
	var observed recorder
	s := hooks.Sample(&observed, 10)
	for i := range 100 {
		before := len(observed.kinds)
		observe(s, alloctrace.Event{Kind: alloctrace.Allocated}, alloctrace.Event{Kind: alloctrace.Freeing})
		if n := len(observed.kinds) - before; n != 2 && i%10 == 0 || n != 0 && i%10 != 0 {
			t.Fatalf("round %d: observed %d of an allocation and a free, want both in every tenth from the first on, else none", i, n)
		}
	}
	for range 7 {
		observe(s, alloctrace.Event{Kind: alloctrace.FreeFailed})
	}
	count := make(map[alloctrace.Kind]int)
	for _, k := range observed.kinds {
		count[k]++
	}
	if count[alloctrace.Allocated] != 10 || count[alloctrace.Freeing] != 10 || count[alloctrace.FreeFailed] != 7 {
		t.Errorf("observed %v, want 10 allocated, 10 freeing, 7 free failed", count)
	}
	defer func() {
		if r, _ := recover().(string); !strings.Contains(r, "hooks: Sample of one in 0") {
			t.Errorf("Sample of one in 0 panics with %q", r)
		}
	}()
	hooks.Sample(&observed, 0)
}

func TestSampleConcurrent(t *testing.T) {
	var mu sync.Mutex
	observed := 0
	s := hooks.Sample(alloctrace.HookFunc(func(context.Context, alloctrace.Event, error) {
		mu.Lock()
		observed++
		mu.Unlock()
	}), 100)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				observe(s, alloctrace.Event{Kind: alloctrace.Allocated})
			}
		})
	}
	wg.Wait()
	if observed != 80 {
		t.Errorf("observed %d of 8000 events, want 80", observed)
	}
}

// writes keeps what it is given to write, call by call.
type writes []string

func (w *writes) Write(p []byte) (int, error) {
	*w = append(*w, string(p))
	return len(p), nil
}

func TestWriter(t *testing.T) {
	var out writes
	h := hooks.NewWriter(&out)
	h.Observe(t.Context(), alloctrace.Event{Kind: alloctrace.Allocated, Addr: 0x7f400000, Size: 65536, Align: 65536}, nil)
	h.Observe(t.Context(), alloctrace.Event{Kind: alloctrace.AllocateFailed, Size: 4096, Align: 4096}, blockalloc.ErrOutOfMemory)
	h.Observe(t.Context(), alloctrace.Event{Kind: alloctrace.FreeFailed, Addr: 0x1000, Size: 1, Align: 1}, errors.New("two\nlines \"quoted\""))
	child := alloctrace.Wrap(alloctest.New(t), alloctrace.WithHooks(hooks.Filter(h, hooks.Failures))).Child("two\nlines")
	if _, err := child.Allocate(blockalloc.Layout{Size: 8, Align: 3}); err == nil {
		t.Fatal("a bad layout is allocated")
	}
	want := []string{ // one Write an event
		"allocated addr=0x7f400000 size=65536 align=65536\n",
		"allocate failed addr=0x0 size=4096 align=4096 err=\"out of memory\"\n",
		`free failed addr=0x1000 size=1 align=1 err="two\nlines \"quoted\""` + "\n",
		`allocate failed addr=0x0 size=8 align=3 child="two\nlines" err=`,
	}
	if last := len(want) - 1; len(out) == len(want) {
		want[last] += out[last][min(len(out[last]), len(want[last])):] // the error is the allocator's
	}
	if !slices.Equal(out, want) {
		t.Errorf("writes %q\nwant   %q", out, want)
	}
}

// half writes half of what it is given, and says nothing of it.
type half struct{}

func (half) Write(p []byte) (int, error) { return len(p) / 2, nil }

func TestWriterLost(t *testing.T) {
	h := hooks.NewWriter(half{})
	observe(h, alloctrace.Event{Kind: alloctrace.Freeing}, alloctrace.Event{Kind: alloctrace.Freeing})
	if h.Lost() != 2 {
		t.Errorf("%d events lost, want 2", h.Lost())
	}
}

// TestWriterFile: lines of several goroutines do not mix in a file.
func TestWriterFile(t *testing.T) {
	f, err := os.OpenFile(filepath.Join(t.TempDir(), "events"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	h := hooks.NewWriter(f)
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for range 500 {
				observe(h, alloctrace.Event{Kind: alloctrace.Allocated, Addr: uintptr(g), Size: 4096, Align: 4096})
			}
		})
	}
	wg.Wait()
	data, err := os.ReadFile(f.Name())
	if err != nil {
		t.Fatal(err)
	}
	count := make(map[string]int)
	for line := range strings.Lines(string(data)) {
		count[line]++
	}
	if len(count) != 8 || count["allocated addr=0x3 size=4096 align=4096\n"] != 500 || h.Lost() != 0 {
		t.Errorf("lines %v, %d lost; want 8 different, 500 of each", count, h.Lost())
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	observe(h, alloctrace.Event{Kind: alloctrace.Allocated})
	if h.Lost() != 1 {
		t.Errorf("%d events lost on a closed file, want 1", h.Lost())
	}
}
