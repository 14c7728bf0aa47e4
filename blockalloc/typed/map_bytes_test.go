package typed_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/failing"
	"github.com/alloctrace/alloctrace/blockalloc/typed"
)

func newBytesMap[V any](t testing.TB, a blockalloc.Allocator) *typed.BytesMap[V] {
	t.Helper()
	return typed.NewBytesMap[V](a)
}

// strings returns what a BytesMap holds.
func entriesOf[V any](m *typed.BytesMap[V]) map[string]V {
	all := map[string]V{}
	for k, v := range m.All() {
		all[string(k)] = v
	}
	return all
}

func TestBytesMap(t *testing.T) {
	m := newBytesMap[int](t, newChecked(t))
	word := []byte("apple")
	if v, ok := m.Get(word); v != 0 || ok || m.Ptr(word) != nil || m.Delete(word) || m.Len() != 0 {
		t.Error("a new map has an entry")
	}
	must(t, m.Set(word, 1))
	copy(word, "berry") // the map has a copy of its own
	must(t, m.Set(word, 2))
	must(t, m.Set(nil, 3))
	must(t, m.Set([]byte("berry\x00"), 4))
	must(t, m.Set([]byte{}, 5))
	*m.Ptr([]byte("apple"))++
	v, added, err := m.Ensure([]byte("cherry"))
	if err != nil || !added || *v != 0 {
		t.Errorf("Ensure = %v, %v, %v", *v, added, err)
	}
	*v = 6
	if v, added, err = m.Ensure([]byte("cherry")); err != nil || added || *v != 6 {
		t.Errorf("Ensure = %v, %v, %v", *v, added, err)
	}
	want := map[string]int{"apple": 2, "berry": 2, "": 5, "berry\x00": 4, "cherry": 6}
	if got := entriesOf(m); !maps.Equal(got, want) {
		t.Errorf("the map is %v, want %v", got, want)
	}
	var keys []string
	for k := range m.Keys() {
		keys = append(keys, string(k))
		if cap(k) != len(k) {
			t.Errorf("to append to %q would overwrite what follows", k)
		}
	}
	if !slices.Equal(keys, []string{"apple", "berry", "", "berry\x00", "cherry"}) {
		t.Errorf("the keys are %q, want them as they were added", keys)
	}
	if got := slices.Collect(m.Values()); !slices.Equal(got, []int{2, 2, 5, 4, 6}) {
		t.Errorf("the values are %v", got)
	}
	if !m.Delete(nil) || m.Delete(nil) || m.Len() != 4 {
		t.Error("Delete of the empty key")
	}
	m.Clear()
	if m.Len() != 0 || len(entriesOf(m)) != 0 {
		t.Error("Clear leaves entries")
	}
	must(t, m.Set([]byte("apple"), 7))
	if got, ok := m.Get([]byte("apple")); got != 7 || !ok {
		t.Errorf("after Clear and Set: %v, %v", got, ok)
	}
	must(t, m.Free())
}

// Keys may be views of the map's own memory, even when it moves for them: to a new
// block, or within the old one to close the gaps of deleted keys.
func TestBytesMapOfItsOwnKeys(t *testing.T) {
	for _, remove := range []bool{false, true} {
		m := newBytesMap[int](t, newChecked(t))
		long := bytes.Repeat([]byte("abcdefgh"), 30)
		must(t, m.Set(long, -1))
		want := map[string]int{string(long): -1}
		for i := range 500 {
			keys := slices.Collect(m.Keys())
			if last := keys[len(keys)-1]; remove && i%3 > 0 && len(keys) > 1 {
				delete(want, string(last))
				m.Delete(last)
			}
			part := keys[0][i%8 : len(long)-i*7%200]
			want[string(part)] = i
			must(t, m.Set(part, i))
			if got := entriesOf(m); !maps.Equal(got, want) {
				t.Fatalf("the map is %v, want %v", got, want)
			}
		}
		must(t, m.Free())
	}
}

// A view of a key that was deleted can be added again at once.
func TestBytesMapTakesDeletedKeys(t *testing.T) {
	m := newBytesMap[int](t, newChecked(t))
	for i := range 100 {
		must(t, m.Set(fmt.Appendf(nil, "some word %d", i), i))
	}
	for i := range 300 {
		for k, v := range m.All() {
			m.Delete(k)
			must(t, m.Set(k, v+i))
			break
		}
	}
	want := map[string]int{}
	for i := range 100 {
		want[fmt.Sprintf("some word %d", i)] = i
	}
	want["some word 0"] += 299 * 300 / 2
	if got := entriesOf(m); !maps.Equal(got, want) {
		t.Errorf("the map is %v", got)
	}
	must(t, m.Free())
}

// Words that come and go leave no gaps behind that grow without end.
func TestBytesMapChurn(t *testing.T) {
	a := newChecked(t)
	m := newBytesMap[uint32](t, a)
	key := func(i int) []byte { return fmt.Appendf(nil, "%0*d", 1+i%50, i) }
	const n = 1000
	for i := range 40 * n {
		must(t, m.Set(key(i), uint32(i)))
		if i >= n && !m.Delete(key(i-n)) {
			t.Fatalf("%s is not there", key(i-n))
		}
	}
	// Keys have 26 B on average, and 8 more each; half of these are deleted ones,
	// and there was growth by half.
	if most := uintptr(n * (34*2*3/2 + 16*3/2 + 14)); m.Len() != n || a.size > most+1000 {
		t.Errorf("%d entries in %d B, want %d in at most %d", m.Len(), a.size, n, most)
	}
	if a.calls > 40 {
		t.Errorf("%d allocations, want growth by half", a.calls)
	}
	for i := 39 * n; i < 40*n; i++ {
		if v, ok := m.Get(key(i)); !ok || v != uint32(i) {
			t.Fatalf("%s is %d, %v", key(i), v, ok)
		}
	}
	c, err := m.Clone()
	must(t, err)
	if !maps.Equal(entriesOf(c), entriesOf(m)) {
		t.Error("the clone differs")
	}
	must(t, errors.Join(m.Free(), c.Free()))
}

// With no memory to be had, the gaps of deleted keys are closed as soon as they
// are needed.
func TestBytesMapReserve(t *testing.T) {
	a := newChecked(t)
	a.slack = 0
	view := &struct{ blockalloc.Allocator }{a}
	m := newBytesMap[uint16](t, view)
	must(t, m.Reserve(100, 1000))
	must(t, m.Reserve(50, 10))
	if a.calls != 3 {
		t.Errorf("%d allocations, want one for each block", a.calls)
	}
	view.Allocator = failing.After(a, 0)
	for round := range 20 {
		for i := range 100 {
			must(t, m.Set(fmt.Appendf(nil, "word %04d%d", i, round%10), uint16(round+i)))
		}
		if err := m.Set([]byte("one more"), 0); !errors.Is(err, blockalloc.ErrOutOfMemory) {
			t.Errorf("one more: error %v, want ErrOutOfMemory", err)
		}
		for i := range 100 {
			k := fmt.Appendf(nil, "word %04d%d", i, round%10)
			if v, ok := m.Get(k); !ok || v != uint16(round+i) {
				t.Fatalf("%s is %d, %v", k, v, ok)
			}
			m.Delete(k)
			if i%7 == 0 {
				must(t, m.Set(fmt.Appendf(nil, "%0*d", 10, i), 0))
				m.Delete(fmt.Appendf(nil, "%0*d", 10, i))
			}
		}
	}
	view.Allocator = a
	must(t, m.Free())
}

// A key that is too long is refused before it is looked at.
func TestBytesMapLongKey(t *testing.T) {
	if unsafe.Sizeof(uintptr(0)) == 4 {
		return // there is none
	}
	m := typed.NewBytesMapFunc[int](newChecked(t), func([]byte) uint64 { return 0 })
	huge := struct {
		start    *byte
		len, cap uint64
	}{new(byte), 1 << 32, 1 << 32}
	if err := m.Set(*(*[]byte)(unsafe.Pointer(&huge)), 1); !errors.Is(err, blockalloc.ErrLimit) || m.Len() != 0 {
		t.Errorf("error %v, want ErrLimit", err)
	}
	must(t, m.Free())
}

// A map that is cleared again and again needs no more memory.
func TestBytesMapClear(t *testing.T) {
	a := newChecked(t)
	m := newBytesMap[int](t, a)
	calls := 0
	for round := range 10 {
		for i := range 100 {
			must(t, m.Set(fmt.Appendf(nil, "word %d", i+round), i))
		}
		if round == 0 {
			calls = a.calls
		}
		if round%2 == 0 {
			m.Clear()
			continue
		}
		for k := range m.All() {
			m.Delete(k)
		}
	}
	if a.calls != calls {
		t.Errorf("%d allocations, want the %d of the first round", a.calls, calls)
	}
	must(t, m.Free())
}

func TestBytesMapAfterFree(t *testing.T) {
	m := newBytesMap[int](t, newChecked(t))
	must(t, m.Set([]byte("a"), 1))
	all := m.All()
	wantFreed(t, "BytesMap", m.Free, map[string]func(){
		"Len":          func() { m.Len() },
		"Get":          func() { m.Get(nil) },
		"Ptr":          func() { m.Ptr(nil) },
		"Ensure":       func() { m.Ensure(nil) },
		"Set":          func() { m.Set(nil, 1) },
		"Delete":       func() { m.Delete(nil) },
		"Clear":        func() { m.Clear() },
		"Reserve":      func() { m.Reserve(0, 0) },
		"All":          func() { all(func([]byte, int) bool { return true }) },
		"Keys":         func() { m.Keys()(func([]byte) bool { return true }) },
		"Values":       func() { m.Values()(func(int) bool { return true }) },
		"Clone":        func() { m.Clone() },
		"SetAllocator": func() { m.SetAllocator(new(blockalloc.Heap)) },
		"zero map":     func() { new(typed.BytesMap[int]).Len() },
	})
	must(t, m.Free())
	m = newBytesMap[int](t, newChecked(t))
	must(t, m.Set([]byte("a"), 1))
	wantPanic(t, "use of a BytesMap after Free", func() {
		for range m.All() {
			must(t, m.Free())
		}
	})
}
