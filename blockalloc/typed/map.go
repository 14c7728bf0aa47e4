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
// [NewMapFunc]; it must not be copied. For keys of bytes that differ in length,
// such as words, there is [BytesMap].
//
// Keys are equal if == says so, as in Go's own maps: +0 and -0 are one key, a NaN
// equals no key and is come to by iterating alone, padding does not count.
//
// Entries are iterated in the order in which they were added; one that is added
// after deletions takes the place of what was deleted last. So the order depends
// on what was done with the map and on nothing else: two runs of a program see the
// same. The body of the loop may change the map, as in Go: what it deletes before
// the iteration comes to it is not seen; what it adds may be seen or not; all else
// is seen once, also when the map grows. The iteration ends even if each of its
// rounds adds an entry. If the body frees the map, the next round panics.
//
// A Map has two blocks, and none before the first entry. One holds the entries, of
// which each takes a struct of its value and its key, 4 bytes at least, and a bit;
// the block doubles up to 256 entries, and grows by half from then on. The other
// is the index: a power of two of groups, each of 48 bytes for up to 7 entries on
// average, so that an entry takes 7 to 14 bytes of it. All in all and on average an
// entry of 16 bytes takes 30, as in a map of Go's; one of 8 bytes 20, not 30; one of
// 64 bytes 88, not 118. While a block grows, the old and the new one are there at
// once; all that the allocator grants for entries is used. Nothing gives memory
// back but [Map.Free]; the entries of a [Map.Clone] take no more than they need.
//
// Deleting and clearing need no memory, nor does adding as long as there are no
// more entries than there once were, or than were reserved. Deletions leave
// nothing behind that makes the map slower, except that an iteration takes as long
// as for the most entries there ever were. A Map holds up to 4,294,967,295 entries;
// one more is [blockalloc.ErrLimit].
//
// Nothing is allocated on the Go heap but the Map itself. To find a key takes 1.2
// to 1.5 times as long as in a map of Go's, and to find that it is not there 0.8 to
// 1.3 times; to add one 1.0 to 1.4 times, and in a small map the allocations on
// top; to iterate half as long. It is for one goroutine at a time; several may read
// at once.
type Map[K comparable, V any] struct {
	table mapTable
	seed  maphash.Seed
	hash  func(K) uint64 // nil: maphash.Comparable with seed
}

// A mapEntry has the key behind the value: a set's values have no size, and a
// field without size costs bytes if it is the last.
type mapEntry[K comparable, V any] struct {
	value V
	key   K
}

// NewMap returns an empty map that takes its memory from mem, and takes none yet.
// It hashes keys with [maphash.Comparable] and a seed of its own, so that nobody
// can foresee which keys collide. It panics if mem is nil, or K or V holds Go pointers.
func NewMap[K comparable, V any](mem blockalloc.Allocator) *Map[K, V] {
	return newMap[K, V]("NewMap", mem, nil)
}

// NewMapFunc is [NewMap] with a hash function of the caller's: one that is faster
// for these keys, or the same in each run. Equal keys must have equal hashes. What
// the function returns is mixed once more, so that numbers may be their own hash;
// keys whose hashes are equal are searched one by one. It panics as NewMap does, and if
// hash is nil.
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

// Ptr returns the value of key k in its place, or nil if there is none. The
// pointer is valid until the map grows, which adding an entry may do, and until
// the entry is deleted or the map cleared or freed.
func (m *Map[K, V]) Ptr(k K) *V {
	if e, _, _ := m.find(k); e != nil {
		return &e.value
	}
	return nil
}

// Ensure returns the value of key k in its place, as Ptr does, after it has added
// a zero value if there was none. It is what m[k]++ does in Go's maps.
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

// Set gives key k the value v.
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

// Delete takes out the entry with key k, and reports whether there was one.
func (m *Map[K, V]) Delete(k K) bool {
	e, number, h := m.find(k)
	if e == nil {
		return false
	}
	m.table.remove(h, number)
	return true
}

// Clear takes out all entries, NaNs too. The memory stays with the map.
func (m *Map[K, V]) Clear() {
	m.check()
	m.table.clear()
}

// Reserve makes room for n entries in all, and asks for no more than that: the
// map needs no memory as long as it has no more entries.
func (m *Map[K, V]) Reserve(n int) error {
	m.check()
	return m.table.makeRoom(n, n, m.hashAt)
}

// All returns the entries, in the order that [Map] describes.
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

// Keys returns the keys, in the order that [Map] describes.
func (m *Map[K, V]) Keys() iter.Seq[K] {
	return func(yield func(K) bool) {
		for k := range m.All() {
			if !yield(k) {
				return
			}
		}
	}
}

// Values returns the values, in the order that [Map] describes.
func (m *Map[K, V]) Values() iter.Seq[V] {
	return func(yield func(V) bool) {
		for _, v := range m.All() {
			if !yield(v) {
				return
			}
		}
	}
}

// Clone returns a copy with the same allocator, hash function and order. It has
// room for exactly the entries there are, so that a map which has lost most of
// them gives memory back by being cloned and freed.
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

// Free gives the map's memory back. If the allocator refuses it, the map is what
// it was or empty, and Free can be called again. It gives back, too, what the allocator has
// refused to take of a Clone, or of room for entries, that came to nothing.
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

// mixHash makes every bit of a hash depend on many of h's, for both the low bits
// and those above them matter (the folded multiplication of wyhash).
func mixHash(h uint64) uint64 {
	high, low := bits.Mul64(h, 0x9e3779b97f4a7c15)
	return high ^ low
}

// joinFree returns err, which is why something half made was freed, untouched if
// that went well.
func joinFree(err, free error) error {
	if free == nil {
		return err
	}
	return errors.Join(err, free)
}
