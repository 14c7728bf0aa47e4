package hooks_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/hooks"
)

// recorder keeps the kinds that it is told.
type recorder struct{ kinds []alloctrace.Kind }

func (r *recorder) Observe(_ context.Context, e alloctrace.Event) { r.kinds = append(r.kinds, e.Kind) }

func observe(h alloctrace.Hook, events ...alloctrace.Event) {
	for _, e := range events {
		h.Observe(context.Background(), e)
	}
}

func TestTee(t *testing.T) {
	var a, b recorder
	observe(hooks.Tee(&a, nil, &b), alloctrace.Event{Kind: alloctrace.Freeing})
	if len(a.kinds) != 1 || len(b.kinds) != 1 {
		t.Errorf("told %v and %v, want one event each", a.kinds, b.kinds)
	}
	observe(hooks.Tee(), alloctrace.Event{})
}

func TestFilter(t *testing.T) {
	events := []alloctrace.Event{
		{Kind: alloctrace.Allocated, Size: 64},
		{Kind: alloctrace.Allocated, Size: 4096},
		{Kind: alloctrace.Reallocating, Size: 4096},
		{Kind: alloctrace.ReallocateFailed, Size: 4096, Err: errors.New("no")},
		{Kind: alloctrace.Freeing, Size: 64},
		{Kind: alloctrace.FreeFailed, Size: 64, Err: errors.New("no")},
	}
	for name, c := range map[string]struct {
		predicates []hooks.Predicate
		want       []int
	}{
		"none":     {nil, []int{0, 1, 2, 3, 4, 5}},
		"failures": {[]hooks.Predicate{hooks.Failures}, []int{3, 5}},
		"ops":      {[]hooks.Predicate{hooks.Ops("allocate", "free")}, []int{0, 1, 4, 5}},
		"kinds":    {[]hooks.Predicate{hooks.Kinds(alloctrace.Allocated, alloctrace.FreeFailed)}, []int{0, 1, 5}},
		"size":     {[]hooks.Predicate{hooks.MinSize(65)}, []int{1, 2, 3}},
		"both":     {[]hooks.Predicate{hooks.MinSize(4096), hooks.Failures}, []int{3}},
	} {
		t.Run(name, func(t *testing.T) {
			var told recorder
			f := hooks.Filter(&told, c.predicates...)
			for i, e := range events {
				before := len(told.kinds)
				observe(f, e)
				want := 0
				for _, w := range c.want {
					if w == i {
						want = 1
					}
				}
				if got := len(told.kinds) - before; got != want {
					t.Errorf("event %d (%v, %d bytes) was told %d times, want %d", i, e.Kind, e.Size, got, want)
				}
			}
		})
	}
}

// TestSample: of events that alternate, each kind is told at its own rate, and no
// failure is lost.
func TestSample(t *testing.T) {
	var told recorder
	s := hooks.Sample(10, &told)
	for range 100 {
		observe(s, alloctrace.Event{Kind: alloctrace.Allocated}, alloctrace.Event{Kind: alloctrace.Freeing})
	}
	for range 7 {
		observe(s, alloctrace.Event{Kind: alloctrace.FreeFailed})
	}
	count := make(map[alloctrace.Kind]int)
	for _, k := range told.kinds {
		count[k]++
	}
	if count[alloctrace.Allocated] != 10 || count[alloctrace.Freeing] != 10 || count[alloctrace.FreeFailed] != 7 {
		t.Errorf("told %v, want 10 allocated, 10 freeing, 7 free failed", count)
	}
	defer func() {
		if r, _ := recover().(string); !strings.Contains(r, "hooks: Sample(0)") {
			t.Errorf("Sample(0) panics with %q", r)
		}
	}()
	hooks.Sample(0, &told)
}

func TestSampleConcurrent(t *testing.T) {
	var mu sync.Mutex
	told := 0
	s := hooks.Sample(100, alloctrace.HookFunc(func(context.Context, alloctrace.Event) {
		mu.Lock()
		told++
		mu.Unlock()
	}))
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				observe(s, alloctrace.Event{Kind: alloctrace.Allocated})
			}
		})
	}
	wg.Wait()
	if told != 80 {
		t.Errorf("told %d of 8000 events, want 80", told)
	}
}

func TestWriter(t *testing.T) {
	var out bytes.Buffer
	observe(hooks.NewWriter(&out),
		alloctrace.Event{Kind: alloctrace.Allocated, Addr: 0x7f400000, Size: 65536, Align: 65536},
		alloctrace.Event{Kind: alloctrace.AllocateFailed, Size: 4096, Align: 4096, Err: blockalloc.ErrOutOfMemory},
		alloctrace.Event{Kind: alloctrace.FreeFailed, Addr: 0x1000, Size: 1, Align: 1, Err: errors.New("two\nlines \"quoted\"")},
	)
	const want = `allocated addr=0x7f400000 size=65536 align=65536
allocate failed addr=0x0 size=4096 align=4096 err="out of memory"
free failed addr=0x1000 size=1 align=1 err="two\nlines \"quoted\""
`
	if got := out.String(); got != want {
		t.Errorf("lines:\n%swant:\n%s", got, want)
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
