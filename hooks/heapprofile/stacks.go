package heapprofile

import (
	"hash/maphash"
	"runtime"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/callers"
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
	next *stack // in its bucket
	skip callers.Skip

	named atomic.Pointer[[]Frame] // its frames, once somebody has asked for them; see Watched
}

// maxFrames is how many frames of a stack are kept, those of this library included.
const maxFrames = 32

// maxStacks is how many different stacks are kept: there are as many as there are ways to
// come to a place where memory is allocated, which recursion can make many.
const maxStacks = 1 << 16

// stacks keeps each stack once, and for ever. Stacks are found without a lock: what is
// in a bucket stays as it is, and a new one goes before it, written whole before the
// bucket points to it.
type stacks struct {
	seed    maphash.Seed
	skip    callers.Skip
	buckets [1 << 10]atomic.Pointer[stack]
	kept    atomic.Int64
	frames  atomic.Int64 // that there is room for in those kept
	other   stack        // of those beyond maxStacks
}

func newStacks(skip callers.Skip) *stacks { return &stacks{seed: maphash.MakeSeed(), skip: skip} }

// caller returns the stack of who called it.
func (s *stacks) caller() *stack {
	var buffer [maxFrames]uintptr
	pcs := buffer[:callers.Stack(buffer[:])]
	hash := maphash.Bytes(s.seed, unsafe.Slice((*byte)(unsafe.Pointer(&buffer)), len(pcs)*int(unsafe.Sizeof(pcs[0]))))
	bucket := &s.buckets[hash%uint64(len(s.buckets))]
	var added *stack
	for {
		first := bucket.Load()
		for known := first; known != nil; known = known.next {
			if known.hash == hash && slices.Equal(known.pcs, pcs) {
				return known
			}
		}
		if added == nil {
			if s.kept.Load() >= maxStacks {
				return &s.other
			}
			added = &stack{pcs: slices.Clone(pcs), hash: hash, skip: s.skip}
		}
		added.next = first
		if bucket.CompareAndSwap(first, added) {
			s.kept.Add(1)
			s.frames.Add(int64(cap(added.pcs)))
			return added
		}
	}
}

// number returns how many stacks are kept.
func (s *stacks) number() int { return int(s.kept.Load()) }

// bytes returns what s holds on the Go heap.
func (s *stacks) bytes() int64 {
	return int64(unsafe.Sizeof(*s)) + s.kept.Load()*int64(unsafe.Sizeof(stack{})) + s.frames.Load()*int64(unsafe.Sizeof(uintptr(0)))
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
