package blockalloc

import (
	"sync"
	"unsafe"
)

// Locked is an [Allocator] that calls an inner one under a mutex. So several goroutines
// can use any allocator at once, such as a Bump or a FreeList.
//
// Zeroing, ownership and memory are those of the inner allocator. Each operation, also
// Owns and Find, costs a mutex: about two atomic operations if nobody waits. The lock is held
// while the inner allocator runs. What that calls, such as the hooks of a Proxy, must
// not use the same Locked.
type Locked struct {
	inner Allocator
	owner Owner       // nil if inner is none
	mu    *sync.Mutex // shared by views
}

var (
	_ Allocator = (*Locked)(nil)
	_ Owner     = (*Locked)(nil)
	_ Resizer   = (*Locked)(nil)
	_ Rewrapper = (*Locked)(nil)
)

// NewLocked returns an allocator that locks inner, which must not be used directly
// meanwhile. It panics if inner is nil.
func NewLocked(inner Allocator) *Locked {
	return &Locked{inner, ownerOfInner("NewLocked(nil)", inner), new(sync.Mutex)}
}

// Allocate allocates from the inner allocator.
func (l *Locked) Allocate(layout Layout) (Block, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inner.Allocate(layout)
}

// Reallocate reallocates b by the inner allocator.
func (l *Locked) Reallocate(b Block, size uintptr) (Block, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inner.Reallocate(b, size)
}

// Resize resizes b in place by the inner allocator, if that is a [Resizer].
func (l *Locked) Resize(b Block, size uintptr) (Block, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return Resize(l.inner, b, size)
}

// Free gives b back to the inner allocator.
func (l *Locked) Free(b Block) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inner.Free(b)
}

// Owns reports whether the inner allocator owns b, false if that is no Owner.
func (l *Locked) Owns(b Block) bool {
	if l.owner == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.owner.Owns(b)
}

// Find returns what the inner allocator finds, nothing if that is no [Finder].
func (l *Locked) Find(p unsafe.Pointer) (Block, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return findIn(l.inner, p)
}

// Unwrap returns the inner allocator.
func (l *Locked) Unwrap() Allocator { return l.inner }

// Rewrap returns a Locked over another view of the inner allocator, with the same lock.
func (l *Locked) Rewrap(view func(Allocator) Allocator) Allocator {
	return &Locked{view(l.inner), l.owner, l.mu}
}

// String returns "Locked".
func (l *Locked) String() string { return "Locked" }
