package heapprofile

import (
	"runtime"
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/callers"
	"github.com/alloctrace/alloctrace/internal/stacks"
	"github.com/alloctrace/alloctrace/internal/text"
)

// A Frame is a function that was called, and where in it.
type Frame struct {
	Function string `json:"function"` // with the path of its package
	File     string `json:"file"`
	Line     int    `json:"line"`
}

// A stack is the return addresses of who called a hook, the innermost first. There is
// one for all calls that have the same.
type stack struct {
	pcs  []uintptr
	hash uint64
	skip callers.Skip

	named atomic.Pointer[[]Frame] // its frames, once somebody has asked for them; see Watched
}

// maxFrames is how many frames of a stack are kept, those of this library included.
const maxFrames = 32

// maxStacks is how many different stacks are kept: there are as many as there are ways to
// come to a place where memory is allocated, which recursion can make many.
const maxStacks = 1 << 16

// A stackTable keeps each stack once.
type stackTable struct {
	*stacks.Table[*stack]
	other stack // of those beyond maxStacks
}

func newStackTable(skip callers.Skip, max int) *stackTable {
	return &stackTable{Table: stacks.New(1<<10, max, func(pcs []uintptr, hash uint64) *stack {
		return &stack{pcs: pcs, hash: hash, skip: skip}
	})}
}

// caller returns the stack of who called it.
func (t *stackTable) caller() *stack {
	var buffer [maxFrames]uintptr
	if s, ok := t.Of(buffer[:callers.Stack(buffer[:])]); ok {
		return s
	}
	return &t.other
}

// bytes returns what t holds on the Go heap.
func (t *stackTable) bytes() int64 {
	return t.Bytes() + int64(t.Len()+1)*int64(unsafe.Sizeof(stack{}))
}

// frames returns the frames of s, from the one that asked this library for memory, without those
// that are skipped.
func (s *stack) frames() []Frame { return framesOf(s.skip.Frames(s.pcs)) }

func framesOf(frames []runtime.Frame) []Frame {
	var list []Frame
	for _, f := range frames {
		list = append(list, Frame{text.Name(f.Function), text.Name(f.File), f.Line})
	}
	return list
}
