package typed_test

import (
	"errors"
	"runtime"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// A checked allocator knows what is live, moves every block that is reallocated,
// poisons what it takes back, grants more than is asked for, and fails on request:
// whoever relies on old memory, or on a call that cannot fail, is found.
type checked struct {
	inner  blockalloc.Allocator
	slack  uintptr // bytes granted beyond those asked for
	live   map[uintptr]blockalloc.Block
	asked  uintptr // the size asked for last
	calls  int     // of Allocate and Reallocate with a size
	failAt int     // the call that fails, counted from 1
	free   error
}

var errInjected = errors.New("injected")

// newChecked returns a checked allocator over a Heap. When the test ends, nothing
// may be live.
func newChecked(t testing.TB) *checked {
	a := &checked{inner: new(blockalloc.Heap), slack: 7, live: make(map[uintptr]blockalloc.Block)}
	t.Cleanup(func() {
		for _, b := range a.live {
			t.Errorf("leaked %v", b)
		}
	})
	return a
}

func (a *checked) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	if l.Size == 0 {
		return a.inner.Allocate(l)
	}
	a.asked = l.Size
	a.calls++
	if a.calls == a.failAt {
		return blockalloc.Block{}, errInjected
	}
	b, err := a.inner.Allocate(blockalloc.Layout{Size: l.Size + a.slack, Align: l.Align})
	if err == nil {
		poison(b, 0xa5)
		a.live[b.Addr()] = b
	}
	return b, err
}

func (a *checked) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	if a.live[b.Addr()] != b {
		return b, blockalloc.ErrNotOwned
	}
	if size == 0 {
		return blockalloc.Block{}, a.Free(b)
	}
	n, err := a.Allocate(blockalloc.Layout{Size: size, Align: b.Align()})
	if err != nil {
		return b, err
	}
	copy(n.Bytes(), b.Bytes())
	return n, a.Free(b)
}

func (a *checked) Free(b blockalloc.Block) error {
	if b.IsZero() {
		return nil
	}
	if a.free != nil {
		return a.free
	}
	if a.live[b.Addr()] != b {
		return blockalloc.ErrNotOwned
	}
	poison(b, 0xdb)
	delete(a.live, b.Addr())
	return a.inner.Free(b)
}

func poison(b blockalloc.Block, with byte) {
	p := b.Bytes()
	p[0] = with
	for n := 1; n < len(p); n *= 2 {
		copy(p[n:], p[:n])
	}
}

// everyFailure runs a scenario again and again, and lets another of its
// allocations fail each time, until none is left.
func everyFailure(t *testing.T, scenario func(a *checked) error) {
	t.Helper()
	for failAt := 1; ; failAt++ {
		a := newChecked(t)
		a.failAt = failAt
		err := scenario(a)
		if a.calls < failAt {
			if err != nil {
				t.Errorf("without a failure: %v", err)
			}
			if failAt == 1 {
				t.Error("the scenario allocates nothing")
			}
			return
		}
		if err != errInjected {
			t.Errorf("allocation %d failed: error %v, want it untouched", failAt, err)
		}
		if len(a.live) > 0 {
			t.Errorf("allocation %d failed: %d blocks leaked", failAt, len(a.live))
		}
	}
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

// wantFreed: each use of a container panics, in a way that is no mere index out of
// range, after a Free that came twice.
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
