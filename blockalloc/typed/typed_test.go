package typed_test

import (
	"cmp"
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// A checked allocator is over memory of alloctest, which finds leaks, damage and the
// use of moved memory. It grants more than is asked for, counts, and fails on request,
// so that a call whose error is ignored is found.
type checked struct {
	*alloctrace.Proxy
	slack   uintptr // bytes granted beyond those asked for
	asked   uintptr // the size asked for last
	calls   int     // of Allocate and Reallocate with a size
	live    int     // blocks
	size    uintptr // of all of them
	failAt  int     // the call that fails, counted from 1
	failed  error   // the first that came of a call
	free    error   // what each Free fails with
	refused map[blockalloc.Block]bool
}

var errInjected = errors.New("injected")

// newChecked returns a checked allocator. When the test ends, nothing may be live.
func newChecked(t testing.TB) *checked { return checkedOver(alloctest.New(t)) }

func checkedOver(mem *alloctrace.Proxy) *checked {
	return &checked{Proxy: mem, slack: 7, refused: make(map[blockalloc.Block]bool)}
}

// newPool returns memory of the default allocator, most often a Pool, which does not
// move what it can leave in place.
func newPool(t testing.TB) *alloctrace.Proxy {
	return alloctest.New(t, alloctest.WithAllocator(blockalloc.Default()))
}

func (a *checked) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	if l.Size == 0 {
		return a.Proxy.Allocate(l)
	}
	if err := a.call(l.Size); err != nil {
		return blockalloc.Block{}, err
	}
	l.Size += a.slack
	b, err := a.Proxy.Allocate(l)
	if err == nil {
		a.live++
		a.size += b.Size()
	}
	a.failed = cmp.Or(a.failed, err)
	return b, err
}

func (a *checked) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	if size == 0 {
		return blockalloc.Block{}, a.Free(b)
	}
	if err := a.call(size); err != nil {
		return b, err
	}
	n, err := a.Proxy.Reallocate(b, size+a.slack)
	a.size += n.Size() - b.Size()
	a.failed = cmp.Or(a.failed, err)
	return n, err
}

func (a *checked) call(size uintptr) error {
	a.asked = size
	if a.calls++; a.calls == a.failAt {
		return errInjected
	}
	return nil
}

func (a *checked) Free(b blockalloc.Block) error {
	if b.IsZero() {
		return nil
	}
	if a.free != nil {
		a.refused[b] = true
		return a.free
	}
	granted, err := blockalloc.Granted(a.Proxy, b)
	if err == nil {
		err = a.Proxy.Free(b)
	}
	if err == nil {
		a.live--
		a.size -= granted.Size()
		delete(a.refused, b)
	}
	return err
}

// freeRefused frees the n blocks that were refused and that nobody has freed since.
func (a *checked) freeRefused(t *testing.T, n int) {
	t.Helper()
	if len(a.refused) != n {
		t.Errorf("%d blocks could not be given back, want %d", len(a.refused), n)
	}
	for b := range a.refused {
		must(t, a.Free(b))
	}
}

// everyFailure is [alloctest.CheckAllFailures], and checks that the scenario returns
// the first error as it is.
func everyFailure(t *testing.T, scenario func(a *checked) error) {
	t.Helper()
	alloctest.CheckAllFailures(t, func(mem *alloctrace.Proxy) error {
		a := checkedOver(mem)
		err := scenario(a)
		if err != a.failed {
			t.Errorf("error %v, want the allocator's untouched: %v", err, a.failed)
		}
		return err
	})
}

// wantPanic calls f, which must panic with a text that contains part.
func wantPanic(t *testing.T, part string, f func()) {
	t.Helper()
	defer func() {
		t.Helper()
		text := ""
		switch v := recover().(type) {
		case runtime.Error:
			text = v.Error()
		case string:
			text = v
		}
		if !strings.Contains(text, part) {
			t.Errorf("panic %q, want one that says %q", text, part)
		}
	}()
	f()
}

// wantFreed checks that each use of a container panics after two Frees, with more than
// an index out of range.
func wantFreed(t *testing.T, container string, free func() error, uses map[string]func()) {
	t.Helper()
	for range 2 {
		if err := free(); err != nil {
			t.Errorf("Free: %v", err)
		}
	}
	for name, use := range uses {
		t.Run(name, func(t *testing.T) {
			wantPanic(t, "blockalloc/typed: use of a "+container+" after Free", use)
		})
	}
}

// wantAllocs: f allocates nothing on the Go heap.
func wantAllocs(t *testing.T, name string, f func()) {
	t.Helper()
	if raceEnabled {
		f() // the race detector allocates
		return
	}
	if n := testing.AllocsPerRun(100, f); n != 0 {
		t.Errorf("%s allocates %v times on the Go heap, want 0", name, n)
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
