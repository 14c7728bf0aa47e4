package recording

import (
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/callers"
)

// A knownStack is the return addresses of who called, the innermost first.
type knownStack struct {
	pcs    []uintptr
	hash   uint64
	number uint32
	next   *knownStack // in its bucket
}

// maxStacks is how many stacks are told apart: recursion can make any number.
const maxStacks = 1 << 20

// A stackTable gives numbers to stacks. Number 0 is that of none, and of those beyond maxStacks. Stacks are found without a
// lock: what is in a bucket stays as it is, and a new one goes before it, written whole before the bucket points to it.
type stackTable struct {
	seed    maphash.Seed
	buckets [1 << 14]atomic.Pointer[knownStack]

	mu     sync.Mutex // held to add
	list   []*knownStack
	frames int64
}

func (t *stackTable) init() { t.seed = maphash.MakeSeed() }

// caller returns the number of the stack of who called it.
func (t *stackTable) caller() uint32 {
	var buffer [maxFrames]uintptr
	pcs := buffer[:callers.Stack(buffer[:])]
	hash := maphash.Bytes(t.seed, unsafe.Slice((*byte)(unsafe.Pointer(&buffer)), len(pcs)*int(unsafe.Sizeof(pcs[0]))))
	bucket := &t.buckets[hash%uint64(len(t.buckets))]
	if s := find(bucket.Load(), hash, pcs); s != nil {
		return s.number
	}
	return t.add(bucket, hash, pcs)
}

func find(s *knownStack, hash uint64, pcs []uintptr) *knownStack {
	for ; s != nil; s = s.next {
		if s.hash == hash && slices.Equal(s.pcs, pcs) {
			return s
		}
	}
	return nil
}

// add gives a stack a number, unless somebody else was faster.
func (t *stackTable) add(bucket *atomic.Pointer[knownStack], hash uint64, pcs []uintptr) uint32 {
	t.mu.Lock()
	defer t.mu.Unlock()
	first := bucket.Load()
	if s := find(first, hash, pcs); s != nil {
		return s.number
	}
	if len(t.list) == maxStacks {
		return 0
	}
	s := &knownStack{pcs: slices.Clone(pcs), hash: hash, number: uint32(len(t.list) + 1), next: first}
	t.list = append(t.list, s)
	t.frames += int64(cap(s.pcs))
	bucket.Store(s)
	return s.number
}

// pcs returns a stack by its number.
func (t *stackTable) pcs(number uint32) []uintptr {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.list[number-1].pcs
}

// bytes returns what t holds on the Go heap, beside its own size.
func (t *stackTable) bytes() int64 {
	t.mu.Lock()
	defer t.mu.Unlock()
	return int64(len(t.list))*int64(unsafe.Sizeof(knownStack{})) + int64(cap(t.list))*int64(unsafe.Sizeof(t)) + t.frames*int64(unsafe.Sizeof(uintptr(0)))
}
