package typed

import (
	"encoding/binary"
	"fmt"
	"math"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// A mapText holds the keys of a [BytesMap], one behind the other in one block. Before
// each are 8 bytes: the number of its entry, or noNumber if it was deleted, and its
// length.
type mapText struct {
	block blockalloc.Block
	used  uintptr // bytes, from the start
	dead  uintptr // how many of these are deleted keys and their heads
}

const (
	textHead  = 8
	noNumber  = maxEntries // one more than the largest number
	maxKey    = math.MaxUint32
	leastText = 256 // bytes of the first block
)

// at returns the key at offset.
func (t *mapText) at(offset uintptr) []byte {
	p := unsafe.Add(t.block.Pointer(), offset)
	size := uintptr(binary.LittleEndian.Uint32(unsafe.Slice((*byte)(p), textHead)[4:]))
	return unsafe.Slice((*byte)(unsafe.Add(p, textHead)), size)
}

func (t *mapText) head(offset uintptr) []byte {
	return unsafe.Slice((*byte)(unsafe.Add(t.block.Pointer(), offset)), textHead)
}

// put appends key, of the entry with this number, and returns its offset. There must be
// room.
func (t *mapText) put(key []byte, number uint32) uintptr {
	offset := t.used
	t.used += textHead + uintptr(len(key))
	binary.LittleEndian.PutUint32(t.head(offset), number)
	binary.LittleEndian.PutUint32(t.head(offset)[4:], uint32(len(key)))
	copy(t.at(offset), key)
	return offset
}

// drop deletes the key at offset.
func (t *mapText) drop(offset uintptr) {
	binary.LittleEndian.PutUint32(t.head(offset), noNumber)
	t.dead += textHead + uintptr(len(t.at(offset)))
}

func (t *mapText) reset() { t.used, t.dead = 0, 0 }

// fits reports whether there is room for key.
func (t *mapText) fits(key []byte) bool {
	return textHead+uintptr(len(key)) <= t.block.Size()-t.used
}

// makeRoom makes room for size bytes more, heads included. If half of the keys' bytes
// are deleted, it closes the gaps, and calls moved with the new offset of each key that
// moves. Otherwise it grows by half. If there is no memory for that, it closes the gaps
// if that is enough.
func (t *mapText) makeRoom(mem blockalloc.Allocator, size uintptr, moved func(number uint32, offset uintptr)) error {
	enough := size <= t.block.Size()-(t.used-t.dead)
	if enough && t.dead >= t.used/2 {
		t.compact(moved)
		return nil
	}
	err := t.grow(mem, uint64(t.used)+max(uint64(size), uint64(t.used)/2, leastText))
	if err != nil && enough {
		t.compact(moved)
		return nil
	}
	return err
}

// reserve makes room for n keys of size bytes in all, without deleted ones.
func (t *mapText) reserve(mem blockalloc.Allocator, n, size int) error {
	need := uint64(n)*textHead + uint64(size)
	if need <= uint64(t.block.Size()) {
		return nil
	}
	return t.grow(mem, need)
}

// grow enlarges the block to size bytes or more. If it fails, the block is unchanged.
func (t *mapText) grow(mem blockalloc.Allocator, size uint64) error {
	if size > math.MaxInt {
		return fmt.Errorf("blockalloc/typed: %d B of keys: %w: larger than the address space", size, blockalloc.ErrBadLayout)
	}
	var b blockalloc.Block
	var err error
	if t.block.IsZero() {
		b, err = mem.Allocate(blockalloc.Layout{Size: uintptr(size), Align: 1})
	} else {
		b, err = mem.Reallocate(t.block, uintptr(size))
	}
	if err == nil {
		t.block = b
	}
	return err
}

// compact closes the gaps that deleted keys have left.
func (t *mapText) compact(moved func(number uint32, offset uintptr)) {
	text := unsafe.Slice((*byte)(t.block.Pointer()), t.used)
	to := uintptr(0)
	for from := uintptr(0); from < t.used; {
		number := binary.LittleEndian.Uint32(t.head(from))
		size := textHead + uintptr(len(t.at(from)))
		if number != noNumber {
			copy(text[to:], text[from:from+size])
			moved(number, to)
			to += size
		}
		from += size
	}
	t.used, t.dead = to, 0
}

// holds reports whether b is a part of the text.
func (t *mapText) holds(b []byte) bool {
	return uintptr(unsafe.Pointer(unsafe.SliceData(b)))-t.block.Addr() < t.used
}

// free gives the memory back. If it fails, the text is unchanged.
func (t *mapText) free(mem blockalloc.Allocator) error {
	if err := mem.Free(t.block); err != nil {
		return err
	}
	*t = mapText{}
	return nil
}
