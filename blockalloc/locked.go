package blockalloc

import "sync"

// Locked is an [Allocator] that lets one goroutine at a time into another one, and
// thereby makes any allocator safe for concurrent use, such as a Bump or a
// FreeList.
//
// Zeroing, ownership and memory are those of the inner allocator. Each operation,
// Owns included, costs a mutex besides: some two atomic operations as long as
// nobody waits. What the inner allocator calls in turn, such as the hooks of a Proxy
// below, runs under the lock, and must not use the same Locked.
type Locked struct {
	inner Allocator
	owner Owner       // nil if inner is none
	mu    *sync.Mutex // shared by views
}

var (
	_ Allocator = (*Locked)(nil)
	_ Owner     = (*Locked)(nil)
	_ Rewrapper = (*Locked)(nil)
)

// NewLocked returns an allocator that locks inner, which must not be used in other
// ways meanwhile. It panics if inner is nil.
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

// Free gives b back to the inner allocator.
func (l *Locked) Free(b Block) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.inner.Free(b)
}

// Owns asks the inner allocator whether it owns b. It is false if that is no
// Owner.
func (l *Locked) Owns(b Block) bool {
	if l.owner == nil {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.owner.Owns(b)
}

// Unwrap returns the inner allocator.
func (l *Locked) Unwrap() Allocator { return l.inner }

// Rewrap returns a Locked of another view of the inner allocator, with the same
// lock.
func (l *Locked) Rewrap(view func(Allocator) Allocator) Allocator {
	return &Locked{view(l.inner), l.owner, l.mu}
}

// String returns "Locked".
func (l *Locked) String() string { return "Locked" }
