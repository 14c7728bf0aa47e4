package immix

import (
	"fmt"
	"unsafe"
)

// A Word is a slot of an object, or a root: a reference to an object of a [Heap] if its low
// three bits are zero and it is not 0, and else whatever its owner means by it. It has 64
// bits everywhere.
//
// A reference is no address but the number of a block and an offset in it. Go does not allow
// a number to become a pointer, and its checkptr finds that; a pointer to a block and an offset
// it allows. So the heap works in any memory, that of the Go heap included.
type Word uint64

const (
	tagMask    = 7
	offsetMask = BlockSize - 1
)

// IsRef reports whether w is a reference.
func (w Word) IsRef() bool { return w&tagMask == 0 && w != 0 }

// block is the number of the block that w refers into.
func (w Word) block() uint32 { return uint32(w >> blockShift) }

func refTo(block uint32, offset uintptr) Word { return Word(block)<<blockShift | Word(offset) }

// A Kind is what an object is to its owner.
type Kind uint8

// A head is the first word of an object:
//
//	bit 0       0; if 1, the object was evacuated, and the other bits are where to
//	bit 1       the mark, which means live if it equals that of the heap
//	bit 2       1 if what follows is bytes, and not Words
//	bits 8–15   the Kind
//	bits 16–31  a hash that stays the same when the object moves, 0 until it is asked for
//	bits 32–63  how many Words or bytes follow
type head uint64

const (
	forwarded head = 1 << 0
	markBit   head = 1 << 1
	rawBit    head = 1 << 2

	kindShift, hashShift, countShift = 8, 16, 32
)

func newHead(k Kind, raw head, n int) head { return head(k)<<kindShift | raw | head(n)<<countShift }

func (d head) kind() Kind { return Kind(d >> kindShift) }
func (d head) hash() uint16 {
	return uint16(d >> hashShift)
}
func (d head) count() int { return int(d >> countShift) }

// size is the object's size in bytes, its head included.
func (d head) size() uintptr {
	if d&rawBit != 0 {
		return wordSize + (uintptr(d>>countShift)+wordSize-1)&^(wordSize-1)
	}
	return wordSize + uintptr(d>>countShift)*wordSize
}

const wordSize = 8

// at returns the address that w refers to.
func (h *Heap) at(w Word) *head {
	return (*head)(unsafe.Add(h.bases[w.block()], uintptr(w)&offsetMask))
}

// Kind returns the kind of the object w.
func (h *Heap) Kind(w Word) Kind { return h.at(w).kind() }

// Is reports whether w is an object of kind k.
func (h *Heap) Is(w Word, k Kind) bool { return w.IsRef() && h.at(w).kind() == k }

// Len returns how many Words or bytes the object w has.
func (h *Heap) Len(w Word) int { return h.at(w).count() }

// Get returns the Word i of the object w, and Set changes it. They do not check i: Words does.
func (h *Heap) Get(w Word, i int) Word { return *h.slot(w, i) }

// Set changes the Word i of the object w.
func (h *Heap) Set(w Word, i int, v Word) { *h.slot(w, i) = v }

func (h *Heap) slot(w Word, i int) *Word {
	return (*Word)(unsafe.Add(h.bases[w.block()], uintptr(w)&offsetMask+wordSize+uintptr(i)*wordSize))
}

// Words returns the Words of the object w. The next allocation may move them.
func (h *Heap) Words(w Word) []Word {
	d := h.at(w)
	if *d&rawBit != 0 {
		panic(fmt.Sprintf("immix: Words of an object of kind %d, which has bytes: ask for Bytes", d.kind()))
	}
	return unsafe.Slice((*Word)(unsafe.Add(unsafe.Pointer(d), wordSize)), d.count())
}

// Bytes returns the bytes of the object w. The next allocation may move them.
func (h *Heap) Bytes(w Word) []byte {
	d := h.at(w)
	if *d&rawBit == 0 {
		panic(fmt.Sprintf("immix: Bytes of an object of kind %d, which has Words: ask for Words", d.kind()))
	}
	return unsafe.Slice((*byte)(unsafe.Add(unsafe.Pointer(d), wordSize)), d.count())
}

// Hash returns a number of the object w that it keeps when it moves. Several objects may have the same.
func (h *Heap) Hash(w Word) uint16 {
	d := h.at(w)
	if d.hash() == 0 {
		h.hashes = h.hashes*1664525 + 1013904223 // Numerical Recipes' generator, whose upper bits are used
		*d |= head(h.hashes>>16|1) << hashShift
	}
	return d.hash()
}
