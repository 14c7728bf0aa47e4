package blockalloc

import (
	"errors"
	"unsafe"
)

// Fixed is an [Allocator] on a buffer of the caller's: an array of the program, a slice
// of a mapped file, shared memory. It works as a [Bump] does, and allocates by moving a
// pointer up. Blocks have exactly the size asked for, and are cleared if [Layout].Zeroed asks for that. The buffer can
// be used to its last byte.
//
// The caller must not use the buffer otherwise while blocks are live. The Fixed and
// each block keep it alive. The garbage collector finds no pointers in it, even if it
// is on the Go heap.
//
// [Fixed.Owns] is exact, and foreign and second frees are errors. Allocate, and Free of
// the newest block, each cost about one atomic addition. A block takes 24 bytes (16
// with 32-bit addresses) on the Go heap beside its padding. A Fixed is for one
// goroutine at a time; the race detector reports two. There is nothing to close.
type Fixed struct {
	bumper
}

var (
	_ Allocator = (*Fixed)(nil)
	_ Owner     = (*Fixed)(nil)
	_ Resizer   = (*Fixed)(nil)
)

// NewFixed returns a Fixed on the len(buf) bytes of buf. An empty buffer is an error.
//
// It is not inlined, so that a local buffer is moved to the Go heap: a goroutine's
// stack can move, which changes addresses and alignments.
//
//go:noinline
func NewFixed(buf []byte) (*Fixed, error) {
	if len(buf) == 0 {
		return nil, errors.New("blockalloc: NewFixed of an empty buffer: pass a slice with a length of 1 or more")
	}
	memory := Block{ptr: unsafe.Pointer(unsafe.SliceData(buf)), size: uintptr(len(buf)), align: 1}
	return &Fixed{bumper{name: "Fixed", memory: memory}}, nil
}
