package recording

import (
	"sync"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/callers"
	"github.com/alloctrace/alloctrace/internal/stacks"
)

// maxStacks is how many stacks are told apart: recursion can make any number.
const maxStacks = 1 << 20

// A stackTable gives numbers to stacks, from 1 on. Number 0 is that of those beyond maxStacks.
type stackTable struct {
	*stacks.Table[uint32]

	mu   sync.Mutex
	list [][]uintptr // return addresses by the number, less 1
}

func (t *stackTable) init() {
	t.Table = stacks.New(1<<14, maxStacks, func(pcs []uintptr, _ uint64) uint32 {
		t.mu.Lock()
		defer t.mu.Unlock()
		t.list = append(t.list, pcs)
		return uint32(len(t.list))
	})
}

// caller returns the number of the stack of who called it.
func (t *stackTable) caller() uint32 {
	var buffer [maxFrames]uintptr
	number, _ := t.Of(buffer[:callers.Stack(buffer[:])])
	return number
}

// pcs returns a stack by its number.
func (t *stackTable) pcs(number uint32) []uintptr {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.list[number-1]
}

// bytes returns what t holds on the Go heap, beside its own size.
func (t *stackTable) bytes() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.Bytes() + int64(cap(t.list))*int64(unsafe.Sizeof(t.list[0]))
}
