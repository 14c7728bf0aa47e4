package typed_test

import (
	"errors"
	"maps"
	"math"
	"slices"
	"sync"
	"testing"
	"unsafe"

	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/typed"
)

func newMap[K comparable, V any](t testing.TB, a blockalloc.Allocator) *typed.Map[K, V] {
	t.Helper()
	return typed.NewMap[K, V](a)
}

// numbers returns a map of 0 to n-1, each to its double.
func numbers(t testing.TB, a blockalloc.Allocator, n int) *typed.Map[int, int] {
	t.Helper()
	m := newMap[int, int](t, a)
	for i := range n {
		must(t, m.Set(i, 2*i))
	}
	return m
}

func TestMap(t *testing.T) {
	m := newMap[string8, int](t, newChecked(t))
	if v, ok := m.Get(key8("a")); v != 0 || ok || m.Ptr(key8("a")) != nil || m.Delete(key8("a")) || m.Len() != 0 {
		t.Error("a new map has an entry")
	}
	m.Clear()
	must(t, m.Set(key8("a"), 1))
	must(t, m.Set(key8("b"), 2))
	must(t, m.Set(key8("a"), 3))
	*m.Ptr(key8("b"))++
	if v, ok := m.Get(key8("a")); v != 3 || !ok || m.Len() != 2 {
		t.Errorf("a is %d, %v of %d", v, ok, m.Len())
	}
	v, added, err := m.Ensure(key8("b"))
	if err != nil || added || *v != 3 {
		t.Errorf("Ensure of b = %v, %v, %v", *v, added, err)
	}
	if v, added, err = m.Ensure(key8("c")); err != nil || !added || *v != 0 {
		t.Errorf("Ensure of c = %v, %v, %v", *v, added, err)
	}
	*v = 4
	if !m.Delete(key8("a")) || m.Delete(key8("a")) || m.Ptr(key8("a")) != nil {
		t.Error("Delete of a")
	}
	if got := maps.Collect(m.All()); !maps.Equal(got, map[string8]int{key8("b"): 3, key8("c"): 4}) {
		t.Errorf("the map is %v", got)
	}
	// Ensure gives zero values in the places of what was deleted, too.
	if v, _, err := m.Ensure(key8("d")); err != nil || *v != 0 {
		t.Errorf("Ensure of d = %v, %v", *v, err)
	}
	m.Clear()
	if v, ok := m.Get(key8("b")); ok || m.Len() != 0 {
		t.Errorf("after Clear, b is %d", v)
	}
	must(t, m.Free())
}

type string8 [8]byte

func key8(s string) (k string8) {
	copy(k[:], s)
	return k
}

// Floats, and structs with fields that == does not look at, are keys as in Go's
// own maps.
func TestMapKeysAreEqualAsInGo(t *testing.T) {
	a := newChecked(t)
	floats, want := newMap[float64, int](t, a), map[float64]int{}
	nan, negative := math.NaN(), math.Copysign(0, -1)
	for i, f := range []float64{0, nan, negative, 1, nan, -nan, math.Inf(1), 1, negative, 0, negative} {
		must(t, floats.Set(f, i))
		want[f] = i
	}
	if floats.Len() != len(want) {
		t.Errorf("%d entries, want %d", floats.Len(), len(want))
	}
	for f, i := range want {
		if got, ok := floats.Get(f); ok != (f == f) || ok && got != i {
			t.Errorf("%v is %d, %v; want %d", f, got, ok, i)
		}
	}
	nans := 0
	for f := range floats.Keys() {
		if f != f {
			nans++
		}
		if f == 0 && !math.Signbit(f) {
			t.Error("the key is still +0 after -0 was set")
		}
	}
	if nans != 3 || floats.Delete(nan) || floats.Ptr(nan) != nil {
		t.Errorf("%d NaNs, want 3, which are not to be found", nans)
	}
	if _, added, err := floats.Ensure(0); added || err != nil {
		t.Errorf("Ensure(+0) = %v, %v after -0", added, err)
	}
	for f := range floats.Keys() {
		if f == 0 && math.Signbit(f) {
			t.Error("the key is still -0 after Ensure of +0")
		}
	}
	c, err := floats.Clone()
	must(t, err)
	if c.Len() != floats.Len() {
		t.Errorf("the clone has %d entries, want %d", c.Len(), floats.Len())
	}
	c.Clear()
	if c.Len() != 0 {
		t.Error("Clear leaves NaNs")
	}
	must(t, errors.Join(floats.Free(), c.Free()))

	padded := newMap[paddedKey, int](t, a)
	dirty := func(fill byte) (k paddedKey) {
		mem := unsafe.Slice((*byte)(unsafe.Pointer(&k)), unsafe.Sizeof(k))
		for i := range mem {
			mem[i] = fill
		}
		k.small, k.large, k.c = 1, 2, complex(0, 0)
		return k
	}
	for fill := range byte(8) {
		must(t, padded.Set(dirty(fill), int(fill)))
	}
	if v, ok := padded.Get(dirty(99)); padded.Len() != 1 || v != 7 || !ok {
		t.Errorf("%d entries, the last %d; want one for all padding", padded.Len(), v)
	}
	must(t, padded.Free())
}

type paddedKey struct {
	small uint8
	large uint64
	_     uint32
	c     complex64
}

// The order depends on what was done with the map, not on hashes.
func TestMapOrder(t *testing.T) {
	a := newChecked(t)
	for range 3 {
		m := numbers(t, a, 500)
		for i, k := range slices.Collect(m.Keys()) {
			if k != i {
				t.Fatalf("key %d is %d, want them as they were added", i, k)
			}
		}
		for i, v := range slices.Collect(m.Values()) {
			if v != 2*i {
				t.Fatalf("value %d is %d", i, v)
			}
		}
		m.Delete(100)
		m.Delete(300)
		must(t, m.Set(-1, 0)) // takes the place of 300
		must(t, m.Set(-2, 0))
		must(t, m.Set(-3, 0))
		keys := slices.Collect(m.Keys())
		if keys[300] != -1 || keys[100] != -2 || keys[500] != -3 {
			t.Errorf("keys that took places: %d, %d, %d", keys[300], keys[100], keys[500])
		}
		c, err := m.Clone()
		must(t, err)
		if !slices.Equal(slices.Collect(c.Keys()), keys) {
			t.Error("the clone has another order")
		}
		for _, k := range keys {
			m.Delete(k)
		}
		must(t, m.Set(9, 0)) // starts anew
		must(t, m.Set(8, 0))
		if got := slices.Collect(m.Keys()); !slices.Equal(got, []int{9, 8}) {
			t.Errorf("after all were deleted: %v", got)
		}
		must(t, errors.Join(m.Free(), c.Free()))
	}
}

// What is deleted before the iteration comes to it is not seen, and everything
// that stays is seen once, though the map grows to a hundred times its size.
func TestMapChangesUnderIteration(t *testing.T) {
	m := numbers(t, newChecked(t), 100)
	seen := map[int]int{}
	for k, v := range m.All() {
		if v != 2*k {
			t.Fatalf("%d is %d", k, v)
		}
		seen[k]++
		m.Delete(k)      // itself: seen already
		m.Delete(99 - k) // not yet seen for k below 50
		for i := range 100 {
			n := 1000 + 100*k + i
			must(t, m.Set(n, 2*n))
		}
	}
	for k, n := range seen {
		if n != 1 || k >= 50 && k < 100 {
			t.Errorf("%d was seen %d times", k, n)
		}
	}
	for k := range 50 {
		if seen[k] != 1 {
			t.Errorf("%d was not seen", k)
		}
	}
	rounds, n := 0, m.Len()
	for range m.All() { // ends, though each round adds an entry
		rounds++
		must(t, m.Set(-rounds, 0))
	}
	if rounds != n {
		t.Errorf("%d rounds for %d entries", rounds, n)
	}
	for range m.All() {
		rounds--
		m.Clear()
	}
	if m.Len() != 0 {
		t.Errorf("%d entries after Clear", m.Len())
	}
	must(t, m.Free())
}

// Iterators stop when the loop breaks.
func TestMapIterationStops(t *testing.T) {
	m := numbers(t, newChecked(t), 10)
	b := newBytesMap[int](t, newChecked(t))
	for i := range 10 {
		must(t, b.Set([]byte{byte(i)}, 2*i))
	}
	n := 0
	for range m.All() {
		n++
		break
	}
	for range m.Keys() {
		n++
		break
	}
	for range m.Values() {
		n++
		break
	}
	for range b.All() {
		n++
		break
	}
	for range b.Keys() {
		n++
		break
	}
	for range b.Values() {
		n++
		break
	}
	if n != 6 {
		t.Errorf("%d rounds, want 6", n)
	}
	must(t, errors.Join(m.Free(), b.Free()))
}

func TestMapAfterFree(t *testing.T) {
	m := numbers(t, newChecked(t), 10)
	all := m.All()
	wantFreed(t, "Map", m.Free, map[string]func(){
		"Len":          func() { m.Len() },
		"Get":          func() { m.Get(1) },
		"Ptr":          func() { m.Ptr(1) },
		"Ensure":       func() { m.Ensure(1) },
		"Set":          func() { m.Set(1, 1) },
		"Delete":       func() { m.Delete(1) },
		"Clear":        func() { m.Clear() },
		"Reserve":      func() { m.Reserve(0) },
		"All":          func() { all(func(int, int) bool { return true }) },
		"Keys":         func() { m.Keys()(func(int) bool { return true }) },
		"Values":       func() { m.Values()(func(int) bool { return true }) },
		"Clone":        func() { m.Clone() },
		"SetAllocator": func() { m.SetAllocator(new(blockalloc.Heap)) },
		"zero Map":     func() { new(typed.Map[int, int]).Len() },
	})
	m = numbers(t, newChecked(t), 10)
	wantPanic(t, "use of a Map after Free", func() {
		for range m.All() {
			must(t, m.Free())
		}
	})
}

func TestMapRefuses(t *testing.T) {
	a := newChecked(t)
	for want, construct := range map[string]func(){
		"NewMap with keys of string: type holds Go pointers: ":                       func() { typed.NewMap[string, int](a) },
		"NewMap with values of struct { Next []*int }: type holds Go pointers: Next": func() { typed.NewMap[int, struct{ Next []*int }](a) },
		"NewMapFunc with keys of interface {}: type holds Go pointers: ":             func() { typed.NewMapFunc[any, int](a, func(any) uint64 { return 0 }) },
		"NewBytesMap of error: type holds Go pointers: the garbage collector does n": func() { typed.NewBytesMap[error](a) },
		"NewBytesMapFunc of error: type holds Go pointers: the garbage":              func() { typed.NewBytesMapFunc[error](a, func([]byte) uint64 { return 0 }) },
		"NewMapFunc: hash is nil: pass a function, or use NewMap":                    func() { typed.NewMapFunc[int, int](a, nil) },
		"NewBytesMapFunc: hash is nil: pass a function, or use NewBytesMap":          func() { typed.NewBytesMapFunc[int](a, nil) },
	} {
		wantPanic(t, "blockalloc/typed: "+want, construct)
	}
	if a.calls > 0 {
		t.Errorf("%d allocations for what is refused", a.calls)
	}
}

// Several goroutines may read a map at once.
func TestMapConcurrentReads(t *testing.T) {
	m := numbers(t, alloctest.New(t), 1000)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			n := 0
			for k, v := range m.All() {
				if got, ok := m.Get(k); !ok || got != v || m.Ptr(k+1000) != nil {
					t.Errorf("%d is %d, %v", k, got, ok)
				}
				n++
			}
			if n != m.Len() {
				t.Errorf("%d entries, want %d", n, m.Len())
			}
		})
	}
	wg.Wait()
	must(t, m.Free())
}

func TestMapAllocatesNothing(t *testing.T) {
	m := numbers(t, alloctest.New(t), 1000)
	b := newBytesMap[int](t, alloctest.New(t))
	key := []byte("some words")
	must(t, b.Set(key, 1))
	must(t, b.Set([]byte("another"), 1))
	f := newMap[float64, [3]float32](t, alloctest.New(t))
	must(t, f.Set(1, [3]float32{}))
	n := 0
	wantAllocs(t, "Get", func() { v, _ := m.Get(7); n += v })
	wantAllocs(t, "Ptr", func() { *m.Ptr(7)++ })
	wantAllocs(t, "Set", func() { _ = m.Set(7, 8) })
	wantAllocs(t, "Ensure", func() { v, _, _ := m.Ensure(7); *v++ })
	wantAllocs(t, "Delete and Set", func() { m.Delete(7); _ = m.Set(7, 8) })
	wantAllocs(t, "Set and Get of floats", func() { v, _ := f.Get(1); v[0]++; _ = f.Set(1, v) })
	wantAllocs(t, "iteration", func() {
		for k, v := range m.All() {
			n += k + v
		}
		for k := range m.Keys() {
			n += k
		}
		for v := range m.Values() {
			n += v
		}
	})
	wantAllocs(t, "BytesMap", func() {
		v, _ := b.Get(key)
		_ = b.Set(key, v+1)
		b.Delete(key)
		_ = b.Set(key, v)
		for k, v := range b.All() {
			n += len(k) + v
		}
	})
	wantAllocs(t, "BytesMap with a key on the stack", func() {
		key := [8]byte{'a'}
		v, _ := b.Get(key[:])
		n += v
		b.Delete([]byte("another"))
		_ = b.Set([]byte("another"), 2)
	})
	must(t, errors.Join(m.Free(), b.Free(), f.Free()))
}
