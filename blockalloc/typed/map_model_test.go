package typed_test

import (
	"fmt"
	"hash/maphash"
	"iter"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/alloctest"
	"github.com/alloctrace/alloctrace/blockalloc/typed"
)

// FuzzMap reads operations from data and holds what a Map or a BytesMap does
// against a map of Go's. The first byte chooses the types and the hash function.
func FuzzMap(f *testing.F) {
	for kind := range byte(mapKinds) {
		f.Add([]byte{kind, 0, 3, 1, 0, 3, 2, 2, 4, 5, 3, 3, 11, 1, 6, 8, 12, 2, 40, 10, 9, 0, 30, 31, 32, 3, 0, 7, 13})
		f.Add([]byte{kind, 12, 0, 200, 1, 9, 0, 5, 1, 2, 3, 4, 5, 6, 7, 8, 13, 0, 150, 10, 11, 2, 12, 1, 250, 8, 7, 0, 0, 1, 1})
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 0 && len(data) < 1<<9 {
			replayMap(t, alloctest.New(t), data[0], data[1:])
		}
	})
}

// TestMapModel runs FuzzMap's operations at random, as many as take a moment.
func TestMapModel(t *testing.T) {
	mem, pool := alloctest.New(t), newPool(t)
	random := rand.New(rand.NewPCG(1, 2))
	rounds := 16
	if raceEnabled {
		rounds = 4
	}
	for seed := range rounds * mapKinds {
		data := make([]byte, 300)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		replayMap(t, mem, byte(seed), data)
		if seed%16 == 0 {
			replayMap(t, pool, byte(seed), data)
		}
	}
}

// anyMap is what Map and BytesMap have in common.
type anyMap[K comparable, V any] interface {
	Len() int
	Get(K) (V, bool)
	Ptr(K) *V
	Ensure(K) (*V, bool, error)
	Set(K, V) error
	Delete(K) bool
	Clear()
	Reserve(int) error
	All() iter.Seq2[K, V]
	Copy() (anyMap[K, V], error)
	Free() error
}

type plainMap[K comparable, V any] struct{ *typed.Map[K, V] }

func (m plainMap[K, V]) Copy() (anyMap[K, V], error) {
	c, err := m.Clone()
	return plainMap[K, V]{c}, err
}

// wordMap is a BytesMap whose keys are strings.
type wordMap[V any] struct{ m *typed.BytesMap[V] }

func (m wordMap[V]) Len() int                          { return m.m.Len() }
func (m wordMap[V]) Get(k string) (V, bool)            { return m.m.Get([]byte(k)) }
func (m wordMap[V]) Ptr(k string) *V                   { return m.m.Ptr([]byte(k)) }
func (m wordMap[V]) Ensure(k string) (*V, bool, error) { return m.m.Ensure([]byte(k)) }
func (m wordMap[V]) Set(k string, v V) error           { return m.m.Set([]byte(k), v) }
func (m wordMap[V]) Delete(k string) bool              { return m.m.Delete([]byte(k)) }
func (m wordMap[V]) Clear()                            { m.m.Clear() }
func (m wordMap[V]) Reserve(n int) error               { return m.m.Reserve(n, 5*n) }
func (m wordMap[V]) Free() error                       { return m.m.Free() }
func (m wordMap[V]) Copy() (anyMap[string, V], error) {
	c, err := m.m.Clone()
	return wordMap[V]{c}, err
}

func (m wordMap[V]) All() iter.Seq2[string, V] {
	return func(yield func(string, V) bool) {
		for k, v := range m.m.All() {
			if !yield(string(k), v) {
				return
			}
		}
	}
}

const mapKinds = 8

func replayMap(t *testing.T, mem *alloctrace.Proxy, kind byte, data []byte) {
	a := checkedOver(mem)
	u16 := func(n uint16) uint16 { return n }
	u64 := func(n uint16) uint64 { return uint64(n) << 33 }
	word := func(n uint16) string { return fmt.Sprintf("%.*d", n%31, n)[:n%31] + string(rune(n)) }
	switch kind % mapKinds {
	case 0:
		replayMapOf(t, a, plainMap[uint8, struct{}]{newMap[uint8, struct{}](t, a)}, data,
			func(n uint16) uint8 { return uint8(n) }, func(uint16) struct{} { return struct{}{} })
	case 1:
		m := typed.NewMapFunc[uint64, uint16](a, func(k uint64) uint64 { return k })
		replayMapOf(t, a, plainMap[uint64, uint16]{m}, data, u64, u16)
	case 2: // every sixteenth key is a NaN, and there are both zeros
		replayMapOf(t, a, plainMap[float64, uint64]{newMap[float64, uint64](t, a)}, data, func(n uint16) float64 {
			switch n % 16 {
			case 0:
				return math.NaN()
			case 1:
				return math.Copysign(0, float64(n%3)-1)
			}
			return float64(n) / 7
		}, u64)
	case 3:
		m := typed.NewMapFunc[[3]byte, [70]int32](a, func([3]byte) uint64 { return 1 << 63 })
		replayMapOf(t, a, plainMap[[3]byte, [70]int32]{m}, data,
			func(n uint16) [3]byte { return [3]byte{byte(n), byte(n >> 8), 1} },
			func(n uint16) (v [70]int32) { v[0], v[69] = int32(n), -int32(n); return v })
	case 4:
		replayMapOf(t, a, plainMap[paddedKey, bool]{newMap[paddedKey, bool](t, a)}, data,
			func(n uint16) paddedKey { return paddedKey{small: uint8(n), large: uint64(n)} },
			func(n uint16) bool { return n%2 == 0 })
	case 5:
		m := typed.NewMapFunc[uint16, uint8](a, func(k uint16) uint64 { return uint64(k % 3) })
		replayMapOf(t, a, plainMap[uint16, uint8]{m}, data, u16, func(n uint16) uint8 { return uint8(n) })
	case 6:
		replayMapOf(t, a, wordMap[uint64]{newBytesMap[uint64](t, a)}, data, word, u64)
	case 7:
		m := typed.NewBytesMapFunc[uint8](a, func(k []byte) uint64 { return maphash.Bytes(wordSeed, k) % 50 })
		replayMapOf(t, a, wordMap[uint8]{m}, data, word, func(n uint16) uint8 { return uint8(n) })
	}
}

var wordSeed = maphash.MakeSeed()

// A mapModel is a map and the map of Go's that it should be.
type mapModel[K, V comparable] struct {
	*testing.T
	a     *checked
	m     anyMap[K, V]
	want  map[K]V
	data  []byte // operations to come
	key   func(uint16) K
	value func(uint16) V

	open []*watch[K] // the iterations under way
}

// A watch knows what an iteration may see.
type watch[K comparable] struct {
	before         map[K]bool // without NaNs
	seen, added    map[K]int  // how often
	deleted        map[K]bool
	nans, seenNaNs int // how many there were, and how many it has seen
	cleared        bool
}

func replayMapOf[K, V comparable](t *testing.T, a *checked, m anyMap[K, V], data []byte, key func(uint16) K, value func(uint16) V) {
	x := &mapModel[K, V]{T: t, a: a, m: m, want: map[K]V{}, data: data, key: key, value: value}
	for len(x.data) > 0 {
		x.step()
	}
	x.compare()
	must(t, x.m.Free())
}

func (m *mapModel[K, V]) next() byte {
	if len(m.data) == 0 {
		return 0
	}
	b := m.data[0]
	m.data = m.data[1:]
	return b
}

// failed sees to an error: only an injected one may come.
func (m *mapModel[K, V]) failed(err error) bool {
	if err != nil && err != errInjected {
		m.Fatalf("error %v", err)
	}
	return err != nil
}

func (m *mapModel[K, V]) set(k K, v V) {
	if !m.failed(m.m.Set(k, v)) {
		m.wasSet(k, v)
	}
}

func (m *mapModel[K, V]) wasSet(k K, v V) {
	if _, ok := m.want[k]; !ok {
		for _, w := range m.open {
			w.added[k]++
		}
	}
	m.want[k] = v
}

func (m *mapModel[K, V]) delete(k K) {
	_, want := m.want[k]
	if got := m.m.Delete(k); got != want {
		m.Fatalf("Delete(%v) = %v", k, got)
	}
	delete(m.want, k)
	for _, w := range m.open {
		w.deleted[k] = true
	}
}

// step does one operation.
func (m *mapModel[K, V]) step() {
	op, n := m.next()%14, uint16(m.next())
	k, v := m.key(n), m.value(n*3+uint16(op))
	switch op {
	case 0, 1, 2:
		m.set(k, v)
	case 3:
		if p, added, err := m.m.Ensure(k); !m.failed(err) {
			want, ok := m.want[k]
			if added == ok || *p != want {
				m.Fatalf("Ensure(%v) = %v, %v; want %v", k, *p, added, want)
			}
			*p = v
			m.wasSet(k, v)
		}
	case 4, 5:
		m.delete(k)
	case 6:
		want, ok := m.want[k]
		if got, found := m.m.Get(k); found != ok || got != want {
			m.Fatalf("Get(%v) = %v, %v; want %v, %v", k, got, found, want, ok)
		}
		p := m.m.Ptr(k)
		if (p != nil) != ok || ok && *p != want {
			m.Fatalf("Ptr(%v) = %v, want %v, %v", k, p, want, ok)
		}
		if ok {
			*p, m.want[k] = v, v
		}
	case 7:
		if n%4 == 0 {
			m.m.Clear()
			clear(m.want)
			for _, w := range m.open {
				w.cleared = true
			}
		}
	case 8:
		m.failed(m.m.Reserve(int(n) * 3))
	case 9:
		m.clone(n)
	case 10:
		m.iterate(int(n))
	case 11:
		m.a.failAt = m.a.calls + 1 + int(n)%4
	case 12: // many at once
		for i := range uint16(m.next()) {
			m.set(m.key(n*16+i), v)
		}
	case 13:
		for i := range uint16(m.next()) {
			m.delete(m.key(n*16 + i))
		}
	}
	if m.m.Len() != len(m.want) {
		m.Fatalf("operation %d: %d entries, want %d", op, m.m.Len(), len(m.want))
	}
}

// clone compares a clone, and goes on with it or without.
func (m *mapModel[K, V]) clone(n uint16) {
	c, err := m.m.Copy()
	if m.failed(err) {
		return
	}
	if n%2 == 0 || len(m.open) > 0 {
		m.failed(c.Set(m.key(n), m.value(n))) // which the other does not notice
		c.Delete(m.key(n))
		must(m, c.Free())
		m.compare()
		return
	}
	if !slices.EqualFunc(keysOf(m.m), keysOf(c), func(a, b K) bool { return a == b || a != a && b != b }) {
		m.Fatal("the clone has another order")
	}
	must(m, m.m.Free())
	m.m = c
	m.compare()
}

func keysOf[K comparable, V any](m anyMap[K, V]) (keys []K) {
	for k := range m.All() {
		keys = append(keys, k)
	}
	return keys
}

// iterate changes the map while it looks at it, and sees what Go's maps promise.
func (m *mapModel[K, V]) iterate(rounds int) {
	if len(m.open) == 3 {
		return
	}
	w := &watch[K]{before: map[K]bool{}, seen: map[K]int{}, added: map[K]int{}, deleted: map[K]bool{}}
	m.open = append(m.open, w)
	defer func() { m.open = m.open[:len(m.open)-1] }()
	for k := range m.want {
		if k != k {
			w.nans++
		} else {
			w.before[k] = true
		}
	}
	for k, v := range m.m.All() {
		if k != k {
			w.seenNaNs++
		} else if want, ok := m.want[k]; !ok || v != want {
			m.Fatalf("the iteration comes to %v: %v; want %v, %v", k, v, want, ok)
		} else if w.seen[k]++; w.seen[k] > 1+w.added[k] {
			m.Fatalf("the iteration comes to %v again", k)
		}
		if rounds > 0 {
			rounds--
			m.step()
		} else if len(m.data)%5 == 1 {
			return
		}
	}
	if w.cleared {
		return
	}
	for k := range w.before {
		if !w.deleted[k] && w.seen[k] == 0 {
			m.Fatalf("the iteration does not come to %v", k)
		}
	}
	if w.seenNaNs < w.nans {
		m.Fatalf("the iteration comes to %d NaNs of %d", w.seenNaNs, w.nans)
	}
}

// compare compares the contents.
func (m *mapModel[K, V]) compare() {
	n, sum := 0, map[V]int{}
	for k, v := range m.m.All() {
		n++
		sum[v]++
		if want, ok := m.want[k]; k == k && (!ok || want != v) {
			m.Fatalf("%v is %v, want %v, %v", k, v, want, ok)
		}
		if got, ok := m.m.Get(k); ok != (k == k) || ok && got != v {
			m.Fatalf("Get(%v) = %v, %v; want %v", k, got, ok, v)
		}
	}
	for _, v := range m.want { // for the NaNs
		sum[v]--
	}
	for v, n := range sum {
		if n != 0 {
			m.Fatalf("value %v is there %d times too often", v, n)
		}
	}
	if n != len(m.want) || n != m.m.Len() {
		m.Fatalf("%d entries, Len %d, want %d", n, m.m.Len(), len(m.want))
	}
}
