package alloctrace_test

import (
	"context"
	"errors"
	"os"
	"sync"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// requireAll says that this run must leave nothing out, as CI's.
var requireAll = os.Getenv("ALLOCTRACE_REQUIRE_ALL") == "1"

// page is the layout of most blocks in these tests.
var page = blockalloc.BlockLayout(4 << 10)

func allocate(t testing.TB, a blockalloc.Allocator, l blockalloc.Layout) blockalloc.Block {
	t.Helper()
	b, err := a.Allocate(l)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func free(t testing.TB, a blockalloc.Allocator, blocks ...blockalloc.Block) {
	t.Helper()
	for _, b := range blocks {
		if err := a.Free(b); err != nil {
			t.Fatal(err)
		}
	}
}

// observation is an event with its error.
type observation struct {
	alloctrace.Event
	err error
}

// recorder keeps the events that it observes.
type recorder struct {
	mu     sync.Mutex
	events []observation
}

func (r *recorder) Observe(_ context.Context, e alloctrace.Event, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.events = append(r.events, observation{e, err})
}

// ledger holds events against the address rule: it knows which addresses are live
// as far as it has observed, and of what size, and reports one that becomes live twice,
// or that is taken back out of turn.
type ledger struct {
	t    testing.TB
	mu   sync.Mutex
	live map[uintptr]uintptr
}

func newLedger(t testing.TB) *ledger { return &ledger{t: t, live: make(map[uintptr]uintptr)} }

func (l *ledger) Observe(_ context.Context, e alloctrace.Event, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	stranger := errors.Is(err, blockalloc.ErrDoubleFree) || errors.Is(err, blockalloc.ErrNotOwned)
	switch e.Kind {
	case alloctrace.Allocated, alloctrace.Reallocated:
		if l.live[e.Addr] != 0 {
			l.t.Errorf("%v at %#x, which is live", e.Kind, e.Addr)
		}
		l.live[e.Addr] = e.Size
	case alloctrace.Freeing, alloctrace.Reallocating:
		if l.live[e.Addr] == e.Size {
			delete(l.live, e.Addr)
		}
	case alloctrace.FreeFailed, alloctrace.ReallocateFailed:
		if stranger || e.Addr == 0 || errors.Is(err, blockalloc.ErrClosed) {
			break
		}
		if l.live[e.Addr] != 0 {
			l.t.Errorf("%v at %#x takes back what was not delivered", e.Kind, e.Addr)
		}
		l.live[e.Addr] = e.Size
	}
}

func (l *ledger) empty() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if n := len(l.live); n != 0 {
		l.t.Errorf("as far as hooks have observed, %d blocks are live at the end", n)
	}
}
