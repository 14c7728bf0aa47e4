package typed_test

import (
	"cmp"
	"errors"
	"maps"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
)

// TestMapEveryFailure: whichever allocation fails, the map is unchanged, and the next
// attempt succeeds, unless it is to fail too.
func TestMapEveryFailure(t *testing.T) {
	everyFailure(t, func(a *checked) error {
		m := newMap[uint32, uint64](t, a)
		defer func() { must(t, m.Free()) }()
		var failed error
		want := map[uint32]uint64{}
		note := func(err error) {
			failed = cmp.Or(failed, err)
			if got := maps.Collect(m.All()); !maps.Equal(got, want) || m.Len() != len(want) {
				t.Errorf("after %v the map has %d entries, want %d", err, m.Len(), len(want))
			}
		}
		for i := range uint32(70) {
			if err := m.Set(i, 1); err != nil {
				note(err)
				if err = m.Set(i, 1); errors.Is(err, blocktest.ErrInjected) { // all fail from here on
					note(err)
					return failed
				}
				must(t, err)
			}
			want[i] = 1
		}
		for i := range uint32(70) {
			v, added, err := m.Ensure(100 + i)
			if err != nil {
				note(err)
				if v, added, err = m.Ensure(100 + i); errors.Is(err, blocktest.ErrInjected) {
					note(err)
					return failed
				}
			}
			if !added || err != nil || *v != 0 {
				t.Fatalf("Ensure = %v, %v, %v", v, added, err)
			}
			want[100+i] = 0
		}
		note(m.Reserve(500))
		if c, err := m.Clone(); err != nil {
			note(err)
		} else {
			if got := maps.Collect(c.All()); !maps.Equal(got, want) {
				t.Errorf("the clone has %d entries, want %d", len(got), len(want))
			}
			must(t, c.Free())
		}
		return failed
	})
}

func TestBytesMapEveryFailure(t *testing.T) {
	everyFailure(t, func(a *checked) error {
		m := newBytesMap[byte](t, a)
		defer func() { must(t, m.Free()) }()
		var failed error
		want := map[string]byte{}
		note := func(err error) {
			failed = cmp.Or(failed, err)
			if got := entriesOf(m); !maps.Equal(got, want) || m.Len() != len(want) {
				t.Errorf("after %v the map has %d entries, want %d", err, m.Len(), len(want))
			}
		}
		word := []byte("a word")
		for i := range byte(100) {
			word = append(word, 'a'+i%26)
			if err := m.Set(word, i); err != nil {
				note(err)
				if err = m.Set(word, i); errors.Is(err, blocktest.ErrInjected) {
					note(err)
					return failed
				}
				must(t, err)
			}
			want[string(word)] = i
		}
		note(m.Reserve(500, 20_000))
		if c, err := m.Clone(); err != nil {
			note(err)
		} else {
			if got := entriesOf(c); !maps.Equal(got, want) {
				t.Errorf("the clone has %d entries, want %d", len(got), len(want))
			}
			must(t, c.Free())
		}
		return failed
	})
}

// While the allocator takes no block back, growth fails and changes nothing, and so
// does Free, as often as it is called.
func TestMapWhenFreeFails(t *testing.T) {
	a := newChecked(t)
	m, b := numbers(t, a, 7), newBytesMap[int](t, a)
	must(t, b.Set([]byte("a"), 1))
	a.free = errors.New("not now")
	full := false
	for i := 7; i < 1000 && !full; i++ {
		err := m.Set(i, 2*i)
		full = err == a.free
		if !full && err != nil {
			t.Fatal(err)
		}
		if _, ok := m.Get(i); ok == full {
			t.Errorf("Set(%d): %v, and it is there: %v", i, err, ok)
		}
	}
	if !full {
		t.Error("the map grew")
	}
	for i := range m.Len() {
		if v, ok := m.Get(i); !ok || v != 2*i {
			t.Errorf("%d is %d, %v", i, v, ok)
		}
	}
	live := a.live
	for range 2 {
		if err := m.Free(); err != a.free || m.Len() < 7 {
			t.Errorf("Free: %v, %d entries", err, m.Len())
		}
		if err := b.Free(); err != a.free || a.live != live || b.Len() != 1 {
			t.Errorf("Free: %v, %d entries", err, b.Len())
		}
	}
	a.free = nil
	must(t, errors.Join(m.Free(), b.Free()))
	a.freeRefused(t, 0) // the new block that could not be given back either is the map's
}

// stubborn takes some blocks back and then refuses some.
type stubborn struct {
	*checked
	takes, refuses int
}

func (s *stubborn) Free(b blockalloc.Block) error {
	switch {
	case b.IsZero():
	case s.takes > 0:
		s.takes--
	case s.refuses > 0:
		s.refuses--
		return errInjected
	}
	return s.checked.Free(b)
}

// A block that is refused while the map grows is still the map's.
func TestMapWhenGrowthCannotFree(t *testing.T) {
	s := &stubborn{newChecked(t), 0, 0}
	m := newMap[int, int](t, s)
	must(t, m.Reserve(7))
	for i := range 7 {
		must(t, m.Set(i, 2*i))
	}
	s.refuses = 1
	if err := m.Set(7, 14); err != errInjected || m.Len() != 7 || s.live != 2 {
		t.Errorf("error %v, %d entries in %d blocks; want 7 in 2", err, m.Len(), s.live)
	}
	must(t, m.Set(7, 14))
	for i := range 8 {
		if v, ok := m.Get(i); !ok || v != 2*i {
			t.Errorf("%d is %d, %v", i, v, ok)
		}
	}
	must(t, m.Free())
}

// A map that got only one of its blocks freed is empty, works, and can be freed.
func TestMapWhenFreeFailsHalfway(t *testing.T) {
	for takes := range 3 {
		s := &stubborn{newChecked(t), 0, 0}
		m, b := numbers(t, s, 10), newBytesMap[int](t, s)
		must(t, b.Set([]byte("a"), 1))
		s.takes, s.refuses = min(takes, 1), 1
		if err := m.Free(); err != errInjected || m.Len() != 10*(1-min(takes, 1)) {
			t.Errorf("%d blocks went back: %v, %d entries", takes, err, m.Len())
		}
		s.takes, s.refuses = takes, 1
		if err := b.Free(); err != errInjected || takes > 0 && b.Len() != 0 {
			t.Errorf("%d blocks went back: %v, %d entries", takes, err, b.Len())
		}
		must(t, m.Set(3, 4))
		must(t, b.Set([]byte("b"), 5))
		v, _ := m.Get(3)
		if w, _ := b.Get([]byte("b")); v != 4 || w != 5 || len(entriesOf(b)) != b.Len() {
			t.Errorf("%d blocks went back: %d and %d of %v", takes, v, w, entriesOf(b))
		}
		must(t, errors.Join(m.Free(), b.Free()))
	}
}

// TestMapMemory: an entry takes what the doc comment says.
func TestMapMemory(t *testing.T) {
	t.Run("uint64 to uint64", testMapMemory[uint64, uint64](func(i int) uint64 { return uint64(i) }, 16))
	t.Run("uint64 to nothing", testMapMemory[uint64, struct{}](func(i int) uint64 { return uint64(i) }, 8))
	t.Run("uint16 to bool", testMapMemory[uint16, bool](func(i int) uint16 { return uint16(i) }, 4))
	t.Run("5 bytes to nothing", testMapMemory[[5]byte, struct{}](func(i int) [5]byte { return [5]byte{byte(i), byte(i >> 8)} }, 5))
	t.Run("uint32 to 300 bytes", testMapMemory[uint32, [75]uint32](func(i int) uint32 { return uint32(i) }, 304))
}

func testMapMemory[K comparable, V any](key func(int) K, entry uintptr) func(t *testing.T) {
	return func(t *testing.T) {
		a := newChecked(t)
		a.slack = 0
		m := newMap[K, V](t, a)
		if a.calls != 0 {
			t.Error("an empty map has memory")
		}
		for n := 1; n <= 20_000; n++ {
			must(t, m.Set(key(n), *new(V)))
			if n < 300 && n%16 != 0 || n%499 != 0 {
				continue
			}
			room := 3 * n / 2
			if n < 256 {
				room = 2 * n
			}
			least := uintptr(n)*entry + uintptr(n)*44/7 // 44 where uint64 is aligned to 4
			if most := uintptr(room+8)*(entry+1) + uintptr(2*n+8)*48/7; a.size > most || a.size < least {
				t.Fatalf("%d entries take %d B, want %d to %d", n, a.size, least, most)
			}
		}
		if a.calls > 40 {
			t.Errorf("%d allocations for 20,000 entries", a.calls)
		}
		for n := 101; n <= 20_000; n++ {
			m.Delete(key(n))
		}
		before := a.size
		c, err := m.Clone()
		must(t, err)
		if size := a.size - before; size > 100*entry+16+16*48 {
			t.Errorf("a clone of %d entries takes %d B", c.Len(), size)
		}
		must(t, errors.Join(m.Free(), c.Free()))
	}
}

// After Reserve the map needs no memory, whatever comes and goes.
func TestMapReserve(t *testing.T) {
	for _, n := range []int{1, 7, 8, 14, 15, 100, 1000} {
		a := newChecked(t)
		a.slack = 0
		m := newMap[int, [3]byte](t, a)
		must(t, m.Reserve(n))
		if a.calls != 2 {
			t.Errorf("Reserve(%d): %d allocations, want 2", n, a.calls)
		}
		must(t, m.Reserve(n))
		must(t, m.Reserve(-1))
		a.failAt = 3
		for round := range 4 {
			for i := range n {
				must(t, m.Set(i+round, [3]byte{byte(i)}))
				if m.Len() == n {
					m.Delete(i / 2)
				}
			}
			for i := range n {
				m.Delete(i + round)
			}
		}
		m.Clear()
		for i := range n {
			must(t, m.Set(i, [3]byte{}))
		}
		if err := m.Set(n, [3]byte{}); err != errInjected || m.Len() != n {
			t.Errorf("one more than %d: error %v", n, err)
		}
		must(t, m.Free())
	}
}

// What is too large for a map, for the address space or for the machine is an
// error, and nothing is taken.
func TestMapTooLarge(t *testing.T) {
	a := newChecked(t)
	m, large := newMap[int, int](t, a), newMap[uint16, [1 << 20]byte](t, a)
	b := newBytesMap[int](t, a)
	most := int(^uint(0) >> 1)
	for name, err := range map[string]error{
		"most entries": m.Reserve(most),
		"most bytes":   b.Reserve(1, most),
		"large ones":   large.Reserve(min(most, 1<<31-1)),
	} {
		if !errors.Is(err, blockalloc.ErrBadLayout) && !errors.Is(err, blockalloc.ErrLimit) && !errors.Is(err, blockalloc.ErrOutOfMemory) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	if unsafe.Sizeof(most) == 8 {
		if err := m.Reserve(most); !errors.Is(err, blockalloc.ErrLimit) {
			t.Errorf("error %v, want ErrLimit", err)
		}
	}
	if err := large.Reserve(min(most, 1<<31-1)); !errors.Is(err, blockalloc.ErrBadLayout) {
		t.Errorf("error %v, want ErrBadLayout", err)
	}
	must(t, m.Set(1, 2))
	must(t, large.Set(1, [1 << 20]byte{}))
	if v := large.Ptr(1); v == nil || m.Len() != 1 {
		t.Error("what was too large has changed the map")
	}
	must(t, errors.Join(m.Free(), large.Free(), b.Free()))
}

// A clone that fails, and whose blocks are refused, returns both errors.
func TestMapCloneLosesABlock(t *testing.T) {
	a := newChecked(t)
	m := numbers(t, a, 10)
	a.failAt = a.calls + 2
	a.free = errors.New("not now")
	if c, err := m.Clone(); c != nil || !errors.Is(err, errInjected) || !errors.Is(err, a.free) {
		t.Errorf("Clone = %v, %v; want both errors", c, err)
	}
	a.free = nil
	must(t, m.Free())
	a.freeRefused(t, 0) // the clone's block is the map's
}

// A map grows and is freed through the allocator it has by then.
func TestMapSetAllocator(t *testing.T) {
	inner := newChecked(t)
	first, second := &stubborn{inner, 0, 1000}, &stubborn{inner, 0, 0}
	m, b := newMap[int, int](t, first), newBytesMap[int](t, first)
	must(t, errors.Join(m.Set(1, 1), b.Set([]byte("a"), 1)))
	m.SetAllocator(second)
	b.SetAllocator(second)
	for i := range 100 {
		must(t, errors.Join(m.Set(i, i), b.Set([]byte{byte(i)}, i)))
	}
	must(t, errors.Join(m.Free(), b.Free()))
	wantPanic(t, "Map.SetAllocator(nil): pass an allocator", func() { newMap[int, int](t, first).SetAllocator(nil) })
	wantPanic(t, "BytesMap.SetAllocator(nil): pass an allocator", func() { newBytesMap[int](t, first).SetAllocator(nil) })
}
