package blockalloc_test

import (
	"errors"
	"fmt"
	"iter"
	"runtime"
	"testing"

	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
)

func newScoped(t testing.TB, parent blockalloc.Allocator, size uintptr) *blockalloc.Scoped {
	t.Helper()
	s, err := blockalloc.NewScoped(parent, size)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// scope runs f in a scope of s that must open.
func scope(t testing.TB, s *blockalloc.Scoped, f func(inner *blockalloc.Scoped)) {
	t.Helper()
	if err := s.Scope(func(inner *blockalloc.Scoped) error { f(inner); return nil }); err != nil {
		t.Fatal(err)
	}
}

// unclosed is a scope without Close, which only the root has a use for.
type unclosed struct {
	blockalloc.Allocator
	blockalloc.Owner
}

// TestInnerScopeConforms runs the suite inside a scope that does not begin at the
// beginning of the memory.
func TestInnerScopeConforms(t *testing.T) {
	root := newScoped(t, alloctest.New(t), 4<<20)
	old := carverTest{t}.allocate(root, 1000, 8)
	carverTest{t}.fill(old, 9)
	for _, depth := range []int{1, 3} {
		inside(t, root, depth, func(inner *blockalloc.Scoped) {
			blocktest.Run(t, blocktest.Config{
				New:            func(t testing.TB) blockalloc.Allocator { return unclosed{inner, inner} },
				MaxSize:        1 << 20,
				Bounded:        true,
				Arena:          true,
				Capacity:       uintptr(inner.Size() - inner.Used()),
				SingleThreaded: true,
			})
		})
	}
	carverTest{t}.filled(old, 1000, 9)
	carverTest{t}.free(root, old)
}

// inside runs f depth scopes deep in s, each with a block.
func inside(t *testing.T, s *blockalloc.Scoped, depth int, f func(inner *blockalloc.Scoped)) {
	if depth == 0 {
		f(s)
		return
	}
	scope(t, s, func(inner *blockalloc.Scoped) {
		carverTest{t}.allocate(inner, 100, 8)
		inside(t, inner, depth-1, f)
	})
}

func TestScopedRestores(t *testing.T) {
	at := carverTest{t}
	s := newScoped(t, alloctest.New(t), 4096)
	at.allocate(s, 100, 1)
	failure := errors.New("failure")
	use := func(inner *blockalloc.Scoped) {
		b := at.allocate(inner, 8, 512)
		at.allocate(inner, 1000, 1)
		at.free(inner, b) // out of order
	}
	var ended []*blockalloc.Scoped
	for name, leave := range map[string]func() error{
		"return": func() error { return nil },
		"error":  func() error { return failure },
		"panic":  func() error { panic(failure) },
		"exit":   func() error { runtime.Goexit(); return nil },
	} {
		done := make(chan struct{})
		var err error
		var recovered any
		go func() {
			defer close(done)
			defer func() { recovered = recover() }()
			err = s.Scope(func(inner *blockalloc.Scoped) error {
				ended = append(ended, inner)
				use(inner)
				return inner.Scope(func(inmost *blockalloc.Scoped) error {
					ended = append(ended, inmost)
					use(inmost)
					return leave()
				})
			})
		}()
		<-done
		if (err == failure) != (name == "error") || (recovered == any(failure)) != (name == "panic") {
			t.Errorf("%s: Scope returned %v or panicked with %v", name, err, recovered)
		}
		if s.Used() != 100 {
			t.Errorf("%s: %d bytes used after the scope, want 100", name, s.Used())
		}
		at.free(s, at.allocate(s, 3996, 1)) // s works again, to its last byte
	}
	for _, inner := range ended {
		_, err := inner.Allocate(blockalloc.BlockLayout(8))
		at.fails(err, blockalloc.ErrClosed)
	}
}

func TestScopedOuterWaits(t *testing.T) {
	at := carverTest{t}
	s := newScoped(t, alloctest.New(t), 4096)
	old := at.allocate(s, 100, 1)
	dead := at.allocate(s, 100, 1)
	newest := at.allocate(s, 100, 1)
	at.free(s, dead)
	scope(t, s, func(inner *blockalloc.Scoped) {
		for _, size := range []uintptr{0, 1, 100, 1 << 20} {
			b, err := s.Allocate(blockalloc.Layout{Size: size, Align: 8})
			if at.fails(err, blockalloc.ErrScoped); !b.IsZero() {
				t.Errorf("Allocate of %d bytes while a scope is open = %v", size, b)
			}
		}
		_, err := s.Allocate(blockalloc.BlockLayout(999))
		at.fails(err, blockalloc.ErrBadLayout)
		for _, b := range []blockalloc.Block{old, newest} {
			at.fails(s.Free(b), blockalloc.ErrScoped)
			for _, size := range []uintptr{0, 50, 100, 200} {
				n, err := s.Reallocate(b, size)
				if at.fails(err, blockalloc.ErrScoped); n != b {
					t.Errorf("Reallocate(%v, %d) while a scope is open = %v", b, size, n)
				}
			}
			if !s.Owns(b) {
				t.Errorf("s does not own %v while a scope is open", b)
			}
			at.refuses(inner, b, blockalloc.ErrNotOwned)
			_, err = s.Reallocate(b, ^uintptr(0))
			at.fails(err, blockalloc.ErrBadLayout)
		}
		at.free(s, blockalloc.Block{})
		_, err = s.Reallocate(blockalloc.Block{}, 8)
		at.fails(err, blockalloc.ErrBadLayout)

		// A block that is not live is distinguished from one that must wait.
		for _, b := range []blockalloc.Block{dead, at.allocate(inner, 8, 1), borrow(t, 8, 1)} {
			at.refuses(s, b, blockalloc.ErrScoped)
			at.refuses(s, b, blockalloc.ErrNotOwned)
		}

		at.fails(s.Scope(func(*blockalloc.Scoped) error {
			t.Error("a second scope was opened")
			return nil
		}), blockalloc.ErrScoped)
		at.fails(s.Close(), blockalloc.ErrScoped)
		at.fails(inner.Close(), blockalloc.ErrScoped)
		at.free(inner, at.allocate(inner, 8, 1)) // and inner was not disturbed
	})
	at.free(s, old, newest)
	if s.Used() != 0 {
		t.Errorf("%d bytes used in the end", s.Used())
	}
}

func TestScopedInnerEnds(t *testing.T) {
	at := carverTest{t}
	s := newScoped(t, alloctest.New(t), 4096)
	at.allocate(s, 100, 1)
	var ended *blockalloc.Scoped
	var b blockalloc.Block
	scope(t, s, func(inner *blockalloc.Scoped) {
		ended, b = inner, at.allocate(inner, 100, 1)
		if !inner.Owns(b) || s.Owns(b) {
			t.Errorf("%v is owned by the inner scope: %v, the outer: %v; want true, false", b, inner.Owns(b), s.Owns(b))
		}
		if inner.Parent() != blockalloc.Allocator(s) {
			t.Errorf("Parent() = %v, want the outer scope", inner.Parent())
		}
	})
	check := func() {
		t.Helper()
		at.refuses(ended, b, blockalloc.ErrClosed)
		at.refuses(ended, b, blockalloc.ErrNotOwned)
		for _, size := range []uintptr{0, 8} {
			_, err := ended.Allocate(blockalloc.Layout{Size: size, Align: 8})
			at.fails(err, blockalloc.ErrClosed)
		}
		_, err := ended.Allocate(blockalloc.Layout{Size: 8, Align: 0})
		at.fails(err, blockalloc.ErrBadLayout)
		at.fails(ended.Scope(func(*blockalloc.Scoped) error {
			t.Error("a scope was opened in one that has ended")
			return nil
		}), blockalloc.ErrClosed)
		at.fails(ended.Close(), blockalloc.ErrClosed)
		at.free(ended, blockalloc.Block{})
	}
	check()
	at.refuses(s, b, blockalloc.ErrDoubleFree)
	again := at.allocate(s, 100, 1)
	if again != b {
		t.Fatalf("%v lies elsewhere than %v, whose scope has ended", again, b)
	}
	if ended.Owns(again) {
		t.Error("a scope that has ended owns a block")
	}
	at.fails(ended.Free(again), blockalloc.ErrClosed)
	scope(t, s, func(inner *blockalloc.Scoped) { // another scope at the same place
		at.allocate(inner, 100, 1)
		_, err := ended.Allocate(blockalloc.BlockLayout(8))
		at.fails(err, blockalloc.ErrClosed)
	})
	at.free(s, again)
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	check()
}

// TestScopedReallocates repeats four bugs of an earlier allocator of this kind, in the
// root and inside a scope.
func TestScopedReallocates(t *testing.T) {
	for depth := range 3 {
		t.Run(fmt.Sprint(depth), func(t *testing.T) {
			at, parent := carverTest{t}, newLender(t)
			s := newScoped(t, parent, 1024)
			inside(t, s, depth, func(s *blockalloc.Scoped) {
				start := uintptr(s.Used())
				room := uintptr(s.Size()) - start

				// An older block that shrinks: nothing is written behind the memory,
				// or over its neighbours.
				old := at.allocate(s, room-100, 1)
				newest := at.allocate(s, 50, 1)
				at.fill(old, 1)
				at.fill(newest, 2)
				old = at.reallocate(s, old, 10)
				at.filled(old, 10, 1)
				at.filled(newest, 50, 2)

				// The newest block that shrinks gives back what it had more.
				newest = at.reallocate(s, newest, 20)
				if want := int64(start + room - 80); s.Used() != want {
					t.Errorf("%d bytes used, want %d", s.Used(), want)
				}
				at.filled(newest, 20, 2)

				// It grows to the last byte, and fills what another one leaves.
				newest = at.reallocate(s, newest, 100)
				at.filled(newest, 20, 2)
				newest = at.reallocate(s, newest, 99)
				last := at.allocate(s, 1, 1)
				if s.Used() != s.Size() {
					t.Errorf("%d of %d bytes used, want all", s.Used(), s.Size())
				}
				last.Bytes()[0] = 7

				// The end of the memory is nobody's block.
				around := parent.lent[last.Addr()+1-uintptr(s.Size())].around
				end := at.part(around, last.Addr()+1-around.Addr(), 1)
				at.refuses(s, end, blockalloc.ErrNotOwned)

				// An older block that grows takes its content along, no more.
				at.free(s, last, newest)
				newest = at.allocate(s, 10, 1)
				at.fill(newest, 3)
				grown := at.reallocate(s, old, 30)
				at.filled(grown, 10, 1)
				at.filled(newest, 10, 3)
			})
			if err := s.Close(); err != nil { // and the parent looks behind the memory
				t.Error(err)
			}
		})
	}
}

func TestScopedClose(t *testing.T) {
	at, parent := carverTest{t}, newLender(t)
	s := newScoped(t, parent, 4096)
	if s.Parent() != blockalloc.Allocator(parent) || s.Size() != 4096 {
		t.Errorf("Parent() = %v, Size() = %d", s.Parent(), s.Size())
	}
	b := at.allocate(s, 8, 8)
	parent.keeping = errors.New("not now")
	if err := s.Close(); err != parent.keeping || !s.Owns(b) {
		t.Errorf("Close: error %v, want the parent's; block owned: %v", err, s.Owns(b))
	}
	parent.keeping = nil
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		parent.has(0)
	}
	at.refuses(s, b, blockalloc.ErrNotOwned)
	_, err := s.Allocate(blockalloc.BlockLayout(8))
	at.fails(err, blockalloc.ErrClosed)
	_, err = s.Allocate(blockalloc.BlockLayout(9))
	at.fails(err, blockalloc.ErrBadLayout)
	if empty, err := s.Allocate(blockalloc.Layout{Size: 0, Align: 8}); err != nil || !empty.IsZero() {
		t.Errorf("Allocate of size 0 = %v, %v", empty, err)
	}
	at.fails(s.Scope(func(*blockalloc.Scoped) error {
		t.Error("a scope was opened after Close")
		return nil
	}), blockalloc.ErrClosed)
}

func TestNewScopedRefuses(t *testing.T) {
	parent := newLender(t)
	parent.refusal = errors.New("not today")
	for _, try := range []struct {
		size uintptr
		want string
	}{
		{0, "blockalloc: NewScoped of size 0: bad layout: ask for 1 byte or more"},
		{64, "not today"},
	} {
		s, err := blockalloc.NewScoped(parent, try.size)
		if s != nil || err == nil || err.Error() != try.want {
			t.Errorf("NewScoped(parent, %d) = %v, %v; want %q", try.size, s, err, try.want)
		}
	}
}

// TestScopedLeftInCoroutine: a function that is stopped half-way, inside a scope of its
// own, does not keep memory whose scope has ended.
func TestScopedLeftInCoroutine(t *testing.T) {
	at := carverTest{t}
	s := newScoped(t, alloctest.New(t), 4096)
	var left *blockalloc.Scoped
	var stop func()
	scope(t, s, func(inner *blockalloc.Scoped) {
		var next func() (*blockalloc.Scoped, bool)
		next, stop = iter.Pull(func(yield func(*blockalloc.Scoped) bool) {
			scope(t, inner, func(inmost *blockalloc.Scoped) { yield(inmost) })
		})
		left, _ = next()
		at.allocate(left, 100, 1)
	})
	_, err := left.Allocate(blockalloc.BlockLayout(8))
	at.fails(err, blockalloc.ErrClosed)
	b := at.allocate(s, 8, 8)
	scope(t, s, func(inner *blockalloc.Scoped) {
		c := at.allocate(inner, 8, 8)
		stop() // now the inmost function returns, far too late
		if !inner.Owns(c) {
			t.Error("the late end of a scope has freed a block of another")
		}
		at.fails(s.Free(b), blockalloc.ErrScoped)
	})
	at.free(s, b)
}

func TestScopedAllocatesNothingOnTheGoHeap(t *testing.T) {
	at := carverTest{t}
	s := newScoped(t, alloctest.New(t), 4096)
	scope(t, s, func(inner *blockalloc.Scoped) {
		at.noGoAllocations(func() {
			b, _ := inner.Allocate(blockalloc.Layout{Size: 100, Align: 64})
			c, _ := inner.Allocate(blockalloc.Layout{Size: 100, Align: 64})
			b, _ = inner.Reallocate(b, 200)
			if !inner.Owns(b) || s.Owns(b) || inner.Free(c) != nil || inner.Free(b) != nil {
				panic("refused")
			}
		})
	})
}
