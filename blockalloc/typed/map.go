package typed

import (
	"errors"
	"hash/maphash"
	"iter"
	"math/bits"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// A Map is a hash table in blocks of an allocator. Make one with [NewMap] or
// [NewMapFunc]; it must not be copied. For keys of bytes of any length, such as words,
// use [BytesMap].
//
// Keys are equal if == says so, as in Go's maps: +0 and -0 are one key, a NaN equals no
// key and is found only by iterating, and padding does not count.
//
// Entries are iterated in the order in which they were added; one added after deletions
// takes the place of the last deleted one. The order depends on the calls alone, so
// that two runs of a program see the same. The loop's body may change the map, as in
// Go: a deleted entry is not seen if the iteration has not reached it, an added one may
// be seen or not. All others are seen once, also if the map grows. The iteration ends
// even if each round adds an entry. If the body frees the map, the next round panics.
//
// A Map has two blocks, and none before the first entry. One holds the entries: each
// takes a struct of its value and key, 4 bytes at least, and a bit. It doubles up to
// 256 entries, and then grows by half. The other is the index: a power of two of
// groups, each of 48 bytes for up to 7 entries on average, and so 7 to 14 bytes an
// entry. In all an entry of 16 bytes takes 30 on average, as in Go's map; one of 8
// bytes 20, not 30; one of 64 bytes 88, not 118. While a block grows, the old and the
// new one exist at once. All that is granted for entries is used. Only [Map.Free] gives
// memory back; a [Map.Clone] takes no more than its entries need.
//
// Deleting and clearing need no memory. Adding needs none up to the most entries there
// ever were, or were reserved. Deletions do not slow the map, except that an iteration
// takes as long as for the most entries there ever were. A Map holds up to
// 4,294,967,295 entries; one more is [blockalloc.ErrLimit].
//
// Nothing but the Map itself is on the Go heap. Compared to Go's map, finding a key
// takes 1.2 to 1.5 times as long, and a missing key 0.8 to 1.3 times. Adding one takes
// 1.0 to 1.4 times as long, plus allocations in a small map; iterating takes half as
// long. A Map is for one goroutine at a time; several may read at once.
type Map[K comparable, V any] struct {
	table mapTable
	seed  maphash.Seed
	hash  func(K) uint64 // nil: maphash.Comparable with seed
}

// A mapEntry has the key behind the value: a set's values have no size, and a last
// field without size costs bytes.
type mapEntry[K comparable, V any] struct {
	value V
	key   K
}

// NewMap returns an empty map over mem, which takes no memory yet. It hashes keys with
// [maphash.Comparable] and a seed of its own, so that nobody can foresee which keys
// collide. It panics if mem is nil, or if K or V holds Go pointers.
func NewMap[K comparable, V any](mem blockalloc.Allocator) *Map[K, V] {
	return newMap[K, V]("NewMap", mem, nil)
}

// NewMapFunc returns a map with a hash function of the caller's, which may be faster
// for these keys, or the same in each run. Equal keys must have equal hashes. The map
// mixes the hashes once more, so that numbers can be their own hash. Keys with equal
// hashes are searched one by one. It panics as NewMap does, and if hash is nil.
func NewMapFunc[K comparable, V any](mem blockalloc.Allocator, hash func(K) uint64) *Map[K, V] {
	if hash == nil {
		panic("blockalloc/typed: NewMapFunc: hash is nil: pass a function, or use NewMap")
	}
	return newMap[K, V]("NewMapFunc", mem, hash)
}

func newMap[K comparable, V any](function string, mem blockalloc.Allocator, hash func(K) uint64) *Map[K, V] {
	needAllocator(function, mem)
	needPointerFree[K](function + " with keys")
	needPointerFree[V](function + " with values")
	var e mapEntry[K, V]
	return &Map[K, V]{table: newMapTable(mem, unsafe.Sizeof(e)), seed: maphash.MakeSeed(), hash: hash}
}

// Len returns how many entries there are.
func (m *Map[K, V]) Len() int {
	m.check()
	return m.table.entries.live
}

// Get returns the value of key k, and whether there is one.
func (m *Map[K, V]) Get(k K) (v V, ok bool) {
	if e, _, _ := m.find(k); e != nil {
		return e.value, true
	}
	return v, false
}

// Ptr returns the value of key k in place, or nil if there is none. The pointer is
// valid until an entry is added, this one is deleted, or the map is cleared or freed.
func (m *Map[K, V]) Ptr(k K) *V {
	if e, _, _ := m.find(k); e != nil {
		return &e.value
	}
	return nil
}

// Ensure returns the value of key k in place, as Ptr does, and adds a zero value first
// if there is none. To count, increment what it returns, as m[k]++ does in Go's maps.
func (m *Map[K, V]) Ensure(k K) (v *V, added bool, err error) {
	e, _, h := m.find(k)
	if e == nil {
		if e, err = m.add(h); err != nil {
			return nil, false, err
		}
		e.value, added = *new(V), true
	}
	e.key = k
	return &e.value, added, nil
}

// Set sets the value of key k to v.
func (m *Map[K, V]) Set(k K, v V) (err error) {
	e, _, h := m.find(k)
	if e == nil {
		if e, err = m.add(h); err != nil {
			return err
		}
	}
	e.value, e.key = v, k // the key as well, for -0 may become +0: so do Go's maps
	return nil
}

// Delete removes the entry with key k, and reports whether there was one.
func (m *Map[K, V]) Delete(k K) bool {
	e, number, h := m.find(k)
	if e == nil {
		return false
	}
	m.table.remove(h, number)
	return true
}

// Clear removes all entries, also NaNs. The map keeps its memory.
func (m *Map[K, V]) Clear() {
	m.check()
	m.table.clear()
}

// Reserve makes room for n entries in all, and asks for no more than that. Up to n
// entries, the map then needs no memory.
func (m *Map[K, V]) Reserve(n int) error {
	m.check()
	return m.table.makeRoom(n, n, m.hashAt)
}

// All yields the entries, in the order that [Map] describes.
func (m *Map[K, V]) All() iter.Seq2[K, V] {
	return func(yield func(K, V) bool) {
		m.check()
		entries := &m.table.entries
		end := entries.used
		for i, ok := entries.next(0); ok && i < end; i, ok = entries.next(i + 1) {
			if e := m.entry(uint32(i)); !yield(e.key, e.value) {
				return
			}
			m.check()
		}
	}
}

// Keys yields the keys, in the order that [Map] describes.
func (m *Map[K, V]) Keys() iter.Seq[K] {
	return func(yield func(K) bool) {
		for k := range m.All() {
			if !yield(k) {
				return
			}
		}
	}
}

// Values yields the values, in the order that [Map] describes.
func (m *Map[K, V]) Values() iter.Seq[V] {
	return func(yield func(V) bool) {
		for _, v := range m.All() {
			if !yield(v) {
				return
			}
		}
	}
}

// Clone returns a copy with the same allocator, hash function and order. It has room
// for exactly its entries: to give memory back after many deletions, clone the map and
// free it.
func (m *Map[K, V]) Clone() (clone *Map[K, V], err error) {
	m.check()
	c := &Map[K, V]{table: newMapTable(m.table.mem, m.table.entries.stride), seed: m.seed, hash: m.hash}
	defer func() {
		if clone == nil { // also if the allocator or the hash function panics or ends the goroutine
			err = joinFree(err, m.table.refused.giveBack(m.table.mem, c.table.entries.block, c.table.index.block))
		}
	}()
	if err := c.copyFrom(m); err != nil {
		return nil, err
	}
	return c, nil
}

func (m *Map[K, V]) copyFrom(from *Map[K, V]) error {
	if err := m.Reserve(from.Len()); err != nil {
		return err
	}
	for k, v := range from.All() {
		if err := m.Set(k, v); err != nil {
			return err
		}
	}
	return nil
}

// SetAllocator makes the map grow and free through mem from now on. It must take
// the blocks of the allocator before, as another view of the same one does.
func (m *Map[K, V]) SetAllocator(mem blockalloc.Allocator) {
	needAllocator("Map.SetAllocator", mem)
	m.check()
	m.table.mem = mem
}

// Free gives the map's memory back. If the allocator refuses, the map is unchanged or
// empty, and Free can be called again. It also frees blocks that the allocator refused
// to take back earlier, of a Clone or growth that failed.
func (m *Map[K, V]) Free() error { return m.table.free() }

func (m *Map[K, V]) check() {
	if m.table.mem == nil {
		panicFreed("Map")
	}
}

func (m *Map[K, V]) entry(number uint32) *mapEntry[K, V] {
	return (*mapEntry[K, V])(m.table.entries.place(number, max(unsafe.Sizeof(mapEntry[K, V]{}), linkSize)))
}

// find returns the entry with key k and its number, or nil, and the hash of k.
func (m *Map[K, V]) find(k K) (e *mapEntry[K, V], number uint32, h uint64) {
	m.check()
	h = m.hashOf(k)
	x := &m.table.index
	i := x.firstGroup(h)
	for step := uintptr(1); ; step++ {
		g := x.group(i)
		for match := g.match(h); match != 0; match &= match - 1 {
			number := g.numbers[slotOf(match)%slots]
			if e := m.entry(number); e.key == k {
				return e, number, h
			}
		}
		if g.passed == 0 || step > x.mask {
			return nil, 0, h
		}
		i = (i + step) & x.mask
	}
}

// add returns an entry whose key, with hash h, and value are to be written.
func (m *Map[K, V]) add(h uint64) (*mapEntry[K, V], error) {
	number, err := m.table.add(h, m.hashAt)
	if err != nil {
		return nil, err
	}
	return m.entry(number), nil
}

func (m *Map[K, V]) hashOf(k K) uint64 {
	if m.hash == nil {
		return maphash.Comparable(m.seed, k)
	}
	return mixHash(m.hash(k))
}

func (m *Map[K, V]) hashAt(number uint32) uint64 { return m.hashOf(m.entry(number).key) }

// mixHash makes each bit of a hash depend on many bits of h, because the map uses low
// and high ones. It is the folded multiplication of wyhash.
func mixHash(h uint64) uint64 {
	high, low := bits.Mul64(h, 0x9e3779b97f4a7c15)
	return high ^ low
}

// joinFree returns err, unchanged if free is nil: err is why something half made was
// freed.
func joinFree(err, free error) error {
	if free == nil {
		return err
	}
	return errors.Join(err, free)
}
