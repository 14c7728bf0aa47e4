package typed

import (
	"bytes"
	"fmt"
	"hash/maphash"
	"iter"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// A BytesMap is a [Map] whose keys are bytes: words, paths, encoded records. It copies
// and keeps the keys, each of up to 4 GiB less 1. Make one with [NewBytesMap] or
// [NewBytesMapFunc]; it must not be copied.
//
// Order, iteration, growth, deletion and goroutines are as in Map. An entry takes a
// struct of its value and a word, a bit, and its part of the index. The keys are in a
// third block, each with 8 bytes more. That block grows by half, unless half of it is
// deleted keys: then the others close the gaps. So an entry that replaces a deleted one
// may need memory for a longer key. Finding and adding a word take 0.8 to 1.2 times as
// long as in Go's map[string]V.
//
// A key that the map returns is a view of its memory. Do not write to it. It is valid
// until a key is added or the map is cleared or freed. A view can be passed to the map
// as a key.
type BytesMap[V any] struct {
	table mapTable
	text  mapText
	seed  maphash.Seed
	hash  func([]byte) uint64 // nil: maphash.Bytes with seed
}

type bytesEntry[V any] struct {
	value V
	text  uintptr // offset of the key
}

// NewBytesMap returns an empty map over mem, which takes no memory yet. It hashes keys
// with [maphash.Bytes] and a seed of its own. It panics if mem is nil or V holds Go
// pointers.
func NewBytesMap[V any](mem blockalloc.Allocator) *BytesMap[V] {
	return newBytesMap[V]("NewBytesMap", mem, nil)
}

// NewBytesMapFunc returns a map with a hash function of the caller's, as [NewMapFunc]
// does. The function must not write to the key or keep it. It panics as NewBytesMap
// does, and if hash is nil.
func NewBytesMapFunc[V any](mem blockalloc.Allocator, hash func([]byte) uint64) *BytesMap[V] {
	if hash == nil {
		panic("blockalloc/typed: NewBytesMapFunc: hash is nil: pass a function, or use NewBytesMap")
	}
	return newBytesMap[V]("NewBytesMapFunc", mem, hash)
}

func newBytesMap[V any](function string, mem blockalloc.Allocator, hash func([]byte) uint64) *BytesMap[V] {
	needAllocator(function, mem)
	needPointerFree[V](function)
	var e bytesEntry[V]
	return &BytesMap[V]{table: newMapTable(mem, unsafe.Sizeof(e)), seed: maphash.MakeSeed(), hash: hash}
}

// Len returns how many entries there are.
func (m *BytesMap[V]) Len() int {
	m.check()
	return m.table.entries.live
}

// Get returns the value of key, and whether there is one.
func (m *BytesMap[V]) Get(key []byte) (v V, ok bool) {
	if e, _, _ := m.find(key); e != nil {
		return e.value, true
	}
	return v, false
}

// Ptr returns the value of key in place, or nil if there is none. The pointer is valid
// as long as one from [Map.Ptr].
func (m *BytesMap[V]) Ptr(key []byte) *V {
	if e, _, _ := m.find(key); e != nil {
		return &e.value
	}
	return nil
}

// Ensure returns the value of key in place, as Ptr does, and adds a zero value first if
// there is none.
func (m *BytesMap[V]) Ensure(key []byte) (v *V, added bool, err error) {
	e, _, h := m.find(key)
	if e == nil {
		if e, err = m.add(key, h); err != nil {
			return nil, false, err
		}
		e.value, added = *new(V), true
	}
	return &e.value, added, nil
}

// Set sets the value of key to v.
func (m *BytesMap[V]) Set(key []byte, v V) (err error) {
	e, _, h := m.find(key)
	if e == nil {
		if e, err = m.add(key, h); err != nil {
			return err
		}
	}
	e.value = v
	return nil
}

// Delete removes the entry with this key, and reports whether there was one.
func (m *BytesMap[V]) Delete(key []byte) bool {
	e, number, h := m.find(key)
	if e == nil {
		return false
	}
	m.text.drop(e.text)
	m.table.remove(h, number)
	return true
}

// Clear removes all entries. The map keeps its memory.
func (m *BytesMap[V]) Clear() {
	m.check()
	m.table.clear()
	m.text.reset()
}

// Reserve makes room for n entries in all whose keys have size bytes in all, and asks
// for no more than that. Up to there, adding needs no memory.
func (m *BytesMap[V]) Reserve(n, size int) error {
	m.check()
	if err := m.table.makeRoom(n, n, m.hashAt); err != nil {
		return err
	}
	return m.text.reserve(m.table.mem, max(n, 0), max(size, 0))
}

// All yields the entries, in the order that [Map] describes.
func (m *BytesMap[V]) All() iter.Seq2[[]byte, V] {
	return func(yield func([]byte, V) bool) {
		m.check()
		entries := &m.table.entries
		end := entries.used
		for i, ok := entries.next(0); ok && i < end; i, ok = entries.next(i + 1) {
			if e := m.entry(uint32(i)); !yield(m.text.at(e.text), e.value) {
				return
			}
			m.check()
		}
	}
}

// Keys yields the keys, in the order that [Map] describes.
func (m *BytesMap[V]) Keys() iter.Seq[[]byte] {
	return func(yield func([]byte) bool) {
		for k := range m.All() {
			if !yield(k) {
				return
			}
		}
	}
}

// Values yields the values, in the order that [Map] describes.
func (m *BytesMap[V]) Values() iter.Seq[V] {
	return func(yield func(V) bool) {
		for _, v := range m.All() {
			if !yield(v) {
				return
			}
		}
	}
}

// Clone returns a copy with the same allocator, hash function and order, and with room
// for exactly its entries.
func (m *BytesMap[V]) Clone() (clone *BytesMap[V], err error) {
	m.check()
	c := &BytesMap[V]{table: newMapTable(m.table.mem, m.table.entries.stride), seed: m.seed, hash: m.hash}
	defer func() {
		if clone == nil { // also if the allocator or the hash function panics or ends the goroutine
			err = joinFree(err, m.table.refused.giveBack(m.table.mem, c.table.entries.block, c.table.index.block, c.text.block))
		}
	}()
	if err := c.copyFrom(m); err != nil {
		return nil, err
	}
	return c, nil
}

func (m *BytesMap[V]) copyFrom(from *BytesMap[V]) error {
	n, live := from.Len(), from.text.used-from.text.dead
	if err := m.Reserve(n, int(live)-n*textHead); err != nil {
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
func (m *BytesMap[V]) SetAllocator(mem blockalloc.Allocator) {
	needAllocator("BytesMap.SetAllocator", mem)
	m.check()
	m.table.mem = mem
}

// Free gives the map's memory back. If the allocator refuses, the map is unchanged or
// empty, and Free can be called again. It also frees blocks that the allocator refused
// to take back earlier, of a Clone or growth that failed.
func (m *BytesMap[V]) Free() error {
	if m.table.mem == nil {
		return nil
	}
	if err := m.text.free(m.table.mem); err != nil {
		return err
	}
	err := m.table.free()
	if err != nil {
		m.table.clear() // no entry has a key any more
	}
	return err
}

func (m *BytesMap[V]) check() {
	if m.table.mem == nil {
		panicFreed("BytesMap")
	}
}

func (m *BytesMap[V]) entry(number uint32) *bytesEntry[V] {
	return (*bytesEntry[V])(m.table.entries.place(number, unsafe.Sizeof(bytesEntry[V]{})))
}

// find returns the entry with this key and its number, or nil, and the key's hash.
func (m *BytesMap[V]) find(key []byte) (e *bytesEntry[V], number uint32, h uint64) {
	m.check()
	h = m.hashOf(key)
	x := &m.table.index
	i := x.firstGroup(h)
	for step := uintptr(1); ; step++ {
		g := x.group(i)
		for match := g.match(h); match != 0; match &= match - 1 {
			number := g.numbers[slotOf(match)%slots]
			if e := m.entry(number); bytes.Equal(m.text.at(e.text), key) {
				return e, number, h
			}
		}
		if g.passed == 0 || step > x.mask {
			return nil, 0, h
		}
		i = (i + step) & x.mask
	}
}

// add returns an entry with key, whose hash is h. The caller writes its value.
func (m *BytesMap[V]) add(key []byte, h uint64) (*bytesEntry[V], error) {
	if uint64(len(key)) > maxKey {
		return nil, fmt.Errorf("blockalloc/typed: a key of %d B: %w: a key has up to %d", len(key), blockalloc.ErrLimit, uint64(maxKey))
	}
	if !m.text.fits(key) {
		if m.text.holds(key) {
			key = bytes.Clone(key) // for the text moves
		}
		if err := m.text.makeRoom(m.table.mem, textHead+uintptr(len(key)), m.moved); err != nil {
			return nil, err
		}
	}
	number, err := m.table.add(h, m.hashAt)
	if err != nil {
		return nil, err
	}
	e := m.entry(number)
	e.text = m.text.put(key, number)
	return e, nil
}

func (m *BytesMap[V]) moved(number uint32, text uintptr) { m.entry(number).text = text }

func (m *BytesMap[V]) hashOf(key []byte) uint64 {
	if m.hash == nil {
		return maphash.Bytes(m.seed, key)
	}
	return mixHash(m.hash(unescaped(key)))
}

// unescaped hides from the compiler that key is passed to an unknown function, which
// promises not to keep it. Otherwise []byte("a word") would be allocated.
func unescaped(key []byte) []byte {
	p := uintptr(unsafe.Pointer(&key))
	return **(**[]byte)(unsafe.Pointer(&p))
}

func (m *BytesMap[V]) hashAt(number uint32) uint64 {
	return m.hashOf(m.text.at(m.entry(number).text))
}
