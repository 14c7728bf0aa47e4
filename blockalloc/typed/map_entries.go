package typed

import (
	"encoding/binary"
	"math"
	"math/bits"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// mapEntries holds the entries of a map one after the other, each of stride bytes. An
// entry keeps its number until it is dropped, so that an iteration by numbers sees no
// entry twice. A dropped entry leaves a hole, which holds 1 + the number of the hole
// before it. Holes are filled before an entry is added at the end.
//
// Before each 64 entries is a word with a bit for each that is live.
type mapEntries struct {
	block  blockalloc.Block
	stride uintptr // size of an entry in bytes
	room   int     // how many entries fit the block
	used   int     // how many are live or holes: those with lower numbers
	live   int
	hole   uint32 // 1 + the number of the hole to be filled next, 0 if there is none
}

const (
	liveSize = 8 // bytes of the word before 64 entries
	linkSize = 4 // bytes of what is in a hole
)

// newMapEntries returns mapEntries for entries of size bytes, a multiple of their
// alignment.
func newMapEntries(size uintptr) mapEntries { return mapEntries{stride: max(size, linkSize)} }

// at returns the entry with number i.
func (e *mapEntries) at(i uint32) unsafe.Pointer { return e.place(i, e.stride) }

// place is at for callers that know the stride as a constant.
func (e *mapEntries) place(i uint32, stride uintptr) unsafe.Pointer {
	return unsafe.Add(e.block.Pointer(), uintptr(i)*stride+(uintptr(i)/64+1)*liveSize)
}

// lives returns the word that has entry i's bit, which is bit i%64.
func (e *mapEntries) lives(i uint32) *uint64 {
	return (*uint64)(unsafe.Add(e.block.Pointer(), uintptr(i)/64*(64*e.stride+liveSize)))
}

// take makes an entry live and returns its number. Its bytes are what they were. There
// must be room.
func (e *mapEntries) take() uint32 {
	i := e.hole - 1
	if e.hole == 0 {
		i = uint32(e.used)
		e.used++
		if i%64 == 0 {
			*e.lives(i) = 0
		}
	} else {
		e.hole = binary.LittleEndian.Uint32(e.link(i))
	}
	*e.lives(i) |= 1 << (i % 64)
	e.live++
	return i
}

// drop ends the life of entry i.
func (e *mapEntries) drop(i uint32) {
	e.live--
	if e.live == 0 {
		e.reset()
		return
	}
	*e.lives(i) &^= 1 << (i % 64)
	binary.LittleEndian.PutUint32(e.link(i), e.hole)
	e.hole = i + 1
}

func (e *mapEntries) link(i uint32) []byte { return unsafe.Slice((*byte)(e.at(i)), linkSize) }

// next returns the number of the first live entry from i on.
func (e *mapEntries) next(i int) (number int, ok bool) {
	for i < e.used {
		if live := *e.lives(uint32(i)) >> (i % 64); live != 0 {
			return i + bits.TrailingZeros64(live), true
		}
		i = i&^63 + 64
	}
	return 0, false
}

// reset drops all entries and keeps the memory.
func (e *mapEntries) reset() { e.used, e.live, e.hole = 0, 0, 0 }

// grow makes room for n entries in all, which is more than there is. If it fails, the
// entries are unchanged.
func (e *mapEntries) grow(mem blockalloc.Allocator, n int) error {
	size, ok := e.size(n)
	if !ok {
		return mapTooLarge(n, e.stride)
	}
	var b blockalloc.Block
	var err error
	if e.block.IsZero() {
		b, err = mem.Allocate(blockalloc.Layout{Size: size, Align: 8})
	} else {
		b, err = mem.Reallocate(e.block, size)
	}
	if err != nil {
		return err
	}
	e.block, e.room = b, e.fit(b.Size())
	return nil
}

// size returns the bytes that n entries take. ok is false if that exceeds the address
// space.
func (e *mapEntries) size(n int) (size uintptr, ok bool) {
	high, low := bits.Mul64(uint64(n), uint64(e.stride))
	low, carry := bits.Add64(low, (uint64(n)+63)/64*liveSize, 0)
	return uintptr(low), high|carry == 0 && low <= math.MaxInt
}

// fit returns how many entries fit a block of size bytes.
func (e *mapEntries) fit(size uintptr) int {
	group := 64*e.stride + liveSize
	n := size / group * 64
	if rest := size % group; rest > liveSize {
		n += (rest - liveSize) / e.stride
	}
	return int(n)
}

// free gives the memory back. If it fails, the entries are unchanged.
func (e *mapEntries) free(mem blockalloc.Allocator) error {
	if err := mem.Free(e.block); err != nil {
		return err
	}
	*e = mapEntries{stride: e.stride}
	return nil
}
