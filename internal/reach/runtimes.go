package reach

import "github.com/alloctrace/alloctrace/internal/heapdump"

// isRuntimes reports whether an object, of which piece is the begin, is one of the runtime's that has addresses which are no references.
func (f *finder) isRuntimes(rec *heapdump.Record, piece []byte) bool {
	if rec.Addr/heapPage == f.page && isBitmap(rec.Addr, rec.Size) {
		return true
	}
	return rec.Size <= uint64(len(piece)) && (isGoroutine(uintptr(rec.Addr), piece) || isProcessor(uintptr(rec.Addr), piece))
}

// isGoroutine reports whether an object is the runtime's description of a goroutine: the fourth word has all bits set, for the goroutine runs no
// C, and the tenth has its own address. The description has where the goroutine's stack is. That stays when the goroutine has ended and its stack
// is given back, and what was its stack can be part of a block by then.
func isGoroutine(addr uintptr, object []byte) bool {
	for at := uintptr(0); at <= 8; at += 8 { // alone, or after the word that the runtime puts before large objects
		if at+10*wordSize <= uintptr(len(object)) && wordAt(object, at+3*wordSize) == ^uintptr(0) && wordAt(object, at+9*wordSize) == addr+at {
			return true
		}
	}
	return false
}

// barrierWords is how many pointers the runtime's write barrier has place for.
const barrierWords = 512

// isProcessor reports whether an object is the runtime's description of a processor. It has that place, behind more than as much of other things.
// Before it are the addresses of the first free one and of its end. The description has pointers that were written while the collector ran, pages of the
// heap that are free, and what vector registers had. None of these is cleared.
func isProcessor(addr uintptr, object []byte) bool {
	for at := (barrierWords + 2) * wordSize; at+barrierWords*wordSize <= uintptr(len(object)); at += wordSize {
		if start := addr + at; wordAt(object, at-wordSize) == start+barrierWords*wordSize && wordAt(object, at-2*wordSize)-start <= barrierWords*wordSize {
			return true
		}
	}
	return false
}

// A goroutine that waits has an object of the runtime's, a waiter. With 64 bits its place has one word more than it, which is not cleared when the object is
// made. The last word of another object in such a place can be a reference.
const (
	waiterPlace    = wordSize / 8 * 112 // in bytes; 0 with 32 bits
	waiterPointers = 0x0f0f             // which words are pointers
)

// heapPage is the size of the runtime's pages. One with small objects that have pointers ends with the bitmap of where in the page they are, and, with
// the collector Green Tea, with which of them it has marked.
const heapPage = 8 << 10

// isBitmap reports whether in a page of objects with pointers one would overlap these. The runtime dumps such an object, which is none: before the
// bitmap it has what the page had in an earlier use.
func isBitmap(addr, size uint64) bool {
	const bitmap, most = heapPage / uint64(wordSize) / 8, 8 * uint64(wordSize*wordSize) // the size of the objects of which the page tells
	ends := uint64(heapPage - bitmap)
	if size >= 16 {
		ends -= markBytes
	}
	return size <= most && addr%heapPage+size > ends
}
