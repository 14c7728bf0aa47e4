package hooks

import (
	"runtime"
	"slices"
	"sync"

	"github.com/alloctrace/alloctrace/internal/callers"
)

// A Frame is a function that was called, and where in it.
type Frame struct {
	Function string `json:"function"` // with the path of its package
	File     string `json:"file"`
	Line     int    `json:"line"`
}

// A stack is the program counters of who called a hook, the innermost first. There
// is one for all calls that have the same.
type stack struct{ pcs []uintptr }

// maxFrames is how many frames of a stack are kept.
const maxFrames = 32

// stacks keeps each stack once, and for ever: there are as many as there are ways to
// come to a place where memory is allocated.
type stacks struct {
	mu   sync.Mutex
	kept map[uint64][]*stack // by hash
}

// caller returns the stack of the function that called the hook's Observe, and
// leaves out so many frames of the hook's own.
func (s *stacks) caller(skip int) *stack {
	var buffer [maxFrames]uintptr
	pcs := buffer[:runtime.Callers(skip+2, buffer[:])]
	hash := uint64(len(pcs))
	for _, pc := range pcs {
		hash = (hash ^ uint64(pc)) * 0x9e3779b97f4a7c15
		hash ^= hash >> 32
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, known := range s.kept[hash] {
		if slices.Equal(known.pcs, pcs) {
			return known
		}
	}
	if s.kept == nil {
		s.kept = make(map[uint64][]*stack)
	}
	added := &stack{slices.Clone(pcs)}
	s.kept[hash] = append(s.kept[hash], added)
	return added
}

// frames returns the frames of s, from the one that asked this library for memory.
func (s *stack) frames() []Frame {
	var list []Frame
	for _, f := range callers.Frames(s.pcs) {
		list = append(list, Frame{f.Function, f.File, f.Line})
	}
	return list
}
