package reach

import (
	"runtime/debug"
	"unsafe"
)

// step is how much memory is copied at once. It is no more than a page has, which is accessible as a whole or not at all.
const step = 4 << 10

// read calls f with copies of the size bytes at addr, up to 4 KiB at once, but for what is not accessible.
func read(addr, size uintptr, f func(addr uintptr, piece []byte)) {
	for end := addr + size; addr < end; {
		next := min(addr&^(step-1)+step, end)
		readPiece(addr, next, f)
		addr = next
	}
}

// readAround calls f likewise with what lies before low and behind high, up to where memory is not accessible or not the program's, and up to most
// bytes of each.
func readAround(low, high, most uintptr, f func(addr uintptr, piece []byte)) {
	before, behind := programAround(low, high)
	for at := high; at-high < min(most, behind) && readPiece(at, at&^(step-1)+step, f); {
		at = at&^(step-1) + step
	}
	for at := low; low-at < min(most, before) && readPiece((at-1)&^(step-1), at, f); {
		at = (at - 1) &^ (step - 1)
	}
}

// readPiece calls f with a copy of what is between addr and end, which are in one page, and reports whether it could be read.
func readPiece(addr, end uintptr, f func(addr uintptr, piece []byte)) bool {
	var buffer [step / wordSize]uintptr
	addr = (addr + wordSize - 1) &^ (wordSize - 1)
	if addr >= end {
		return true
	}
	words := (end - addr) / wordSize
	if !copyFrom(buffer[:words], addr) {
		return false
	}
	f(addr, unsafe.Slice((*byte)(unsafe.Pointer(&buffer)), words*wordSize))
	return true
}

// copyFrom copies what is at addr, and reports whether it could be read.
func copyFrom(to []uintptr, addr uintptr) (ok bool) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() { ok = recover() == nil }()
	copyWords(to, addr)
	return true
}

// copyWords copies what others may be writing, or may be freeing: the race detector is not to see that, nor what the pointer was made of.
//
//go:norace
//go:nocheckptr
//go:noinline
func copyWords(to []uintptr, addr uintptr) {
	from := *(*unsafe.Pointer)(unsafe.Pointer(&addr))
	for i := range to {
		to[i] = *(*uintptr)(unsafe.Add(from, uintptr(i)*wordSize))
	}
}
