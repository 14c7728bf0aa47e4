package blocktest

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// find finds live blocks by pointers to their first, last and other bytes, and nothing by pointers to what is no
// live block.
func (s suite) find(t *testing.T) {
	a := s.New(t)
	f, ok := blockalloc.FinderOf(a)
	if !ok {
		t.Logf("%T is no Finder", a)
		return
	}
	defer withoutCollector()()
	if b, ok := f.Find(nil); ok {
		t.Errorf("Find(nil) = %v", b)
	}
	var live []blockalloc.Block
	for i := range uintptr(min(4, s.MaxLive)) {
		l := layout(s.size-i, min(1<<(3*i), s.size))
		l.Zeroed = s.Zeroed && i == 1
		b := allocate(t, a, l)
		if b.Requested() != l.Size || b.Align() != l.Align {
			t.Errorf("Allocate(%v) = %v, of a request for %d bytes", l, b, b.Requested())
		}
		live = append(live, b)
		s.checkFind(t, f, live)
	}
	var heap blockalloc.Heap
	foreign := allocate(t, &heap, blockalloc.BlockLayout(s.size))
	for _, p := range []unsafe.Pointer{foreign.Pointer(), unsafe.Add(foreign.Pointer(), s.size-1), unsafe.Pointer(&s)} {
		if b, ok := f.Find(p); ok {
			t.Errorf("Find(%#x) = %v; it is foreign memory", uintptr(p), b)
		}
	}
	for len(live) > 0 { // newest first, as an Arena needs it
		last := len(live) - 1
		old := live[last]
		n, err := a.Reallocate(old, s.size/2)
		if err != nil {
			t.Fatal(err)
		}
		live[last] = n
		s.checkFind(t, f, live)
		if !n.IsZero() && n.Addr() != old.Addr() {
			s.checkNotFound(t, f, old, live)
		}
		found, _ := f.Find(unsafe.Add(n.Pointer(), n.Size()-1))
		free(t, a, found)
		live = live[:last]
		s.checkFind(t, f, live)
		s.checkNotFound(t, f, n, live)
	}
	s.accounts(t, a, "after frees of blocks that were found")
}

// checkFind checks that the bytes of live blocks are found, and those around them are not, unless they are of others.
func (s suite) checkFind(t *testing.T, f blockalloc.Finder, live []blockalloc.Block) {
	t.Helper()
	for _, b := range live {
		for _, offset := range []uintptr{0, 1, b.Size() / 2, b.Requested() - 1, b.Size() - 1} {
			if err := finds(f, b, min(offset, b.Size()-1)); err != nil {
				t.Error(err)
			}
		}
		for _, addr := range []uintptr{b.Addr() + b.Size(), b.Addr() - 1} {
			if got, ok := f.Find(pointer(addr)); ok && !isAny(got, addr, live) {
				t.Errorf("Find(%#x), which is not in %v, finds %v", addr, b, got)
			}
		}
	}
}

// checkNotFound checks that no byte of b, which is not live, is found, unless it is of another block by now.
func (s suite) checkNotFound(t *testing.T, f blockalloc.Finder, b blockalloc.Block, live []blockalloc.Block) {
	t.Helper()
	for _, offset := range []uintptr{0, b.Size() / 2, b.Size() - 1} {
		addr := b.Addr() + offset
		if got, ok := f.Find(pointer(addr)); ok && !isAny(got, addr, live) {
			t.Errorf("Find(%#x) = %v; %v, which is not live, has that byte", addr, got, b)
		}
	}
}

// noCollector is held by the test that has the garbage collector off, so that a
// concurrent one does not turn it on too early.
var noCollector sync.Mutex

// withoutCollector turns the garbage collector off until on is called. It ends the process if it finds a pointer to memory that
// it knows to be free, as one past the end of an object may be.
func withoutCollector() (on func()) {
	noCollector.Lock()
	percent := debug.SetGCPercent(-1)
	runtime.GC() // waits for a collection under way
	return func() {
		debug.SetGCPercent(percent)
		noCollector.Unlock()
	}
}

// pointer returns the pointer to addr, where no memory need be.
func pointer(addr uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&addr)) }

// isAny reports whether b is one of the live blocks and holds addr.
func isAny(b blockalloc.Block, addr uintptr, live []blockalloc.Block) bool {
	for _, l := range live {
		if b == l && addr-l.Addr() < l.Size() {
			return true
		}
	}
	return false
}

// finds returns an error unless f finds b by its byte at offset.
func finds(f blockalloc.Finder, b blockalloc.Block, offset uintptr) error {
	got, ok := f.Find(unsafe.Add(b.Pointer(), offset))
	if !ok || got != b {
		return fmt.Errorf("Find of byte %d of %v, of a request for %d: %v, %v, of one for %d", offset, b, b.Requested(), got, ok, got.Requested())
	}
	return nil
}
