// Package stacks keeps a value for each stack, which is the return addresses of the calls that lead to a place.
package stacks

import (
	"hash/maphash"
	"slices"
	"sync"
	"sync/atomic"
	"unsafe"
)

// A Table keeps a value of type V for each different stack, for ever. Several goroutines may use it at once.
//
// Stacks are found without a lock: what is in a bucket stays as it is, and a new one goes before it, written whole before the
// bucket points to it.
type Table[V any] struct {
	max     int
	value   func(pcs []uintptr, hash uint64) V
	seed    maphash.Seed
	buckets []atomic.Pointer[stack[V]]

	mu     sync.Mutex // held to add
	kept   atomic.Int64
	frames atomic.Int64 // that there is room for in those kept
}

// A stack is return addresses, the innermost first.
type stack[V any] struct {
	pcs   []uintptr
	hash  uint64
	value V
	next  *stack[V] // in its bucket
}

// New returns a Table that keeps max stacks in so many buckets. It calls value once for each, with a lock held. value
// may keep the return addresses, and must not change them.
func New[V any](buckets, max int, value func(pcs []uintptr, hash uint64) V) *Table[V] {
	return &Table[V]{max: max, value: value, seed: maphash.MakeSeed(), buckets: make([]atomic.Pointer[stack[V]], buckets)}
}

// Of returns the value for a stack, which callers.Stack has filled. ok is false if that is a new one, and there
// are as many as are kept. It does not keep pcs.
func (t *Table[V]) Of(pcs []uintptr) (v V, ok bool) {
	hash := maphash.Bytes(t.seed, unsafe.Slice((*byte)(unsafe.Pointer(unsafe.SliceData(pcs))), len(pcs)*int(unsafe.Sizeof(pcs[0]))))
	bucket := &t.buckets[hash%uint64(len(t.buckets))]
	s := find(bucket.Load(), hash, pcs)
	if s == nil {
		if s = t.add(bucket, hash, pcs); s == nil {
			return v, false
		}
	}
	return s.value, true
}

func find[V any](s *stack[V], hash uint64, pcs []uintptr) *stack[V] {
	for s != nil && (s.hash != hash || !slices.Equal(s.pcs, pcs)) {
		s = s.next
	}
	return s
}

// add keeps a stack, unless somebody else was faster. It returns nil if there are too many.
func (t *Table[V]) add(bucket *atomic.Pointer[stack[V]], hash uint64, pcs []uintptr) *stack[V] {
	if t.Len() >= t.max {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	first := bucket.Load()
	if s := find(first, hash, pcs); s != nil {
		return s
	}
	if t.Len() >= t.max {
		return nil
	}
	kept := slices.Clone(pcs)
	s := &stack[V]{kept, hash, t.value(kept, hash), first}
	t.kept.Add(1)
	t.frames.Add(int64(cap(kept)))
	bucket.Store(s)
	return s
}

// Len returns how many stacks are kept.
func (t *Table[V]) Len() int { return int(t.kept.Load()) }

// Bytes returns what t holds on the Go heap, beside what its values point to.
func (t *Table[V]) Bytes() int64 {
	return int64(unsafe.Sizeof(*t)) + int64(len(t.buckets))*int64(unsafe.Sizeof(t.buckets[0])) +
		t.kept.Load()*int64(unsafe.Sizeof(stack[V]{})) + t.frames.Load()*int64(unsafe.Sizeof(uintptr(0)))
}
