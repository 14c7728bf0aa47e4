package typed

import (
	"fmt"
	"math"
	"math/bits"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// A mapIndex finds the numbers of a map's entries by the hashes of their keys. It is a
// power of two of groups of 8 slots. The low 7 bits of a hash are its tag, the bits
// above choose the first group. If that is full, the groups 1, 3, 6, 10 … further on
// are tried, which reaches all of them. The tags of a group are compared at once: a
// Swiss table, as Go's maps are.
//
// Each group counts how many entries found it full and went on. So a search ends at a
// group that none went past, and removing leaves nothing behind: there are no
// tombstones. (The count is that of Folly's F14.)
type mapIndex struct {
	block blockalloc.Block
	base  unsafe.Pointer // of the groups
	mask  uintptr        // how many groups there are, less 1
	limit int            // how many entries it takes
}

// A mapGroup takes 48 bytes.
type mapGroup struct {
	tags    uint64 // a byte a slot: emptyTag, or the low 7 bits of the hash
	passed  uint32 // how many live entries found the group full
	numbers [slots]uint32
}

const (
	slots    = 8
	maxFull  = 7                  // of the slots, on average
	emptyTag = 0x80               // of a slot
	lowBits  = 0x0101010101010101 // the lowest bit of each byte
	highBits = 0x8080808080808080
	noTags   = emptyTag * lowBits // all slots are empty
)

// maxEntries bounds the number of a map's entries, which has 32 bits.
const maxEntries = 1<<32 - 1

// match returns a word that has the highest bit of byte i set if slot i may have the
// tag of h. A slot behind one with that tag can match wrongly, in one of 128 cases.
func (g *mapGroup) match(h uint64) uint64 {
	other := g.tags ^ lowBits*(h%128)
	return (other - lowBits) &^ other & highBits
}

// empty returns a word that has the highest bit of byte i set if slot i is empty.
func (g *mapGroup) empty() uint64 { return g.tags & highBits }

// slotOf returns the first slot with a bit in word, from match or empty.
func slotOf(word uint64) uint { return uint(bits.TrailingZeros64(word)) / 8 }

func (g *mapGroup) setTag(slot uint, tag uint64) {
	g.tags = g.tags&^(0xff<<(8*slot)) | tag<<(8*slot)
}

// noGroup is the group of an index that has no memory yet. Nobody writes to it.
var noGroup = mapGroup{tags: noTags}

func emptyIndex() mapIndex { return mapIndex{base: unsafe.Pointer(&noGroup)} }

func (x *mapIndex) group(i uintptr) *mapGroup {
	return (*mapGroup)(unsafe.Add(x.base, i*unsafe.Sizeof(mapGroup{})))
}

// firstGroup returns the number of the group where an entry with hash h should be.
func (x *mapIndex) firstGroup(h uint64) uintptr { return uintptr(h>>7) & x.mask }

// insert adds the number of an entry with hash h. The index must not be full.
func (x *mapIndex) insert(h uint64, number uint32) {
	i := x.firstGroup(h)
	for step := uintptr(1); ; step++ {
		g := x.group(i)
		if empty := g.empty(); empty != 0 {
			slot := slotOf(empty)
			g.setTag(slot, h%128)
			g.numbers[slot%slots] = number
			return
		}
		g.passed++
		i = (i + step) & x.mask
	}
}

// remove removes the number of an entry with hash h, which is in the index.
func (x *mapIndex) remove(h uint64, number uint32) {
	i := x.firstGroup(h)
	for step := uintptr(1); ; step++ {
		g := x.group(i)
		for match := g.match(h); match != 0; match &= match - 1 {
			if slot := slotOf(match); g.numbers[slot%slots] == number {
				g.setTag(slot, emptyTag)
				return
			}
		}
		g.passed--
		i = (i + step) & x.mask
	}
}

// newMapIndex returns an empty index with room for n entries.
func newMapIndex(mem blockalloc.Allocator, n int) (mapIndex, error) {
	groups := uint64(1) << bits.Len64((uint64(n)-1)/maxFull) // a power of two, and at least n/maxFull
	if groups > math.MaxInt/uint64(unsafe.Sizeof(mapGroup{})) {
		return mapIndex{}, mapTooLarge(n, unsafe.Sizeof(mapGroup{})/maxFull)
	}
	b, err := mem.Allocate(blockalloc.Layout{Size: uintptr(groups) * unsafe.Sizeof(mapGroup{}), Align: 8})
	if err != nil {
		return mapIndex{}, err
	}
	limit := int(min(groups*maxFull, maxEntries, math.MaxInt))
	x := mapIndex{b, b.Pointer(), uintptr(groups) - 1, limit}
	x.clear()
	return x, nil
}

// clear empties all slots.
func (x *mapIndex) clear() {
	groups := unsafe.Slice((*mapGroup)(x.base), x.mask+1)
	for i := range groups {
		groups[i] = mapGroup{tags: noTags}
	}
}

// free gives the memory back. If it fails, the index is cleared and still has it.
func (x *mapIndex) free(mem blockalloc.Allocator) error {
	if err := mem.Free(x.block); err != nil {
		x.clear()
		return err
	}
	*x = emptyIndex()
	return nil
}

// mapTooLarge returns the error for n entries of size bytes each, which exceed the
// address space.
func mapTooLarge(n int, size uintptr) error {
	return fmt.Errorf("blockalloc/typed: a map of %d entries of %d B: %w: larger than the address space", n, size, blockalloc.ErrBadLayout)
}
