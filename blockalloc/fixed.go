package blockalloc

import (
	"errors"
	"unsafe"
)

// Fixed is an [Allocator] on a buffer of the caller's: an array of the program, a
// slice of a mapped file, shared memory. It is a [Bump] in all but where its memory
// comes from, and lives without a heap beneath it: blocks are handed out by moving
// a pointer up, have exactly the size asked for and are not zeroed, and the buffer
// can be used to its last byte.
//
// The buffer must not be used otherwise while blocks are live. It is kept alive by
// the Fixed and by each block. In a buffer on the Go heap the garbage collector
// does not look for pointers either.
//
// Ownership and cost are a Bump's: [Fixed.Owns] is exact, foreign and second frees
// are errors, Allocate and Free of the newest block each cost about as much as one
// atomic addition, and a block takes 24 bytes (16 where addresses have 32 bits) on
// the Go heap beside its padding. A Fixed is for one goroutine at a time; the race
// detector reports two. There is nothing to close.
type Fixed struct {
	bumper
}

var (
	_ Allocator = (*Fixed)(nil)
	_ Owner     = (*Fixed)(nil)
)

// NewFixed returns a Fixed on the length of buf, not its capacity, which must be 1
// or more.
//
// It is not inlined, so that a buffer that is a local variable is moved to the Go
// heap: addresses on a goroutine's stack change, and with them alignments.
//
//go:noinline
func NewFixed(buf []byte) (*Fixed, error) {
	if len(buf) == 0 {
		return nil, errors.New("blockalloc: NewFixed of an empty buffer: pass a slice with a length of 1 or more")
	}
	memory := Block{unsafe.Pointer(unsafe.SliceData(buf)), uintptr(len(buf)), 1}
	return &Fixed{bumper{name: "Fixed", memory: memory}}, nil
}
