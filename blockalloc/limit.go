package blockalloc

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"
)

// Limit is an [Allocator] that bounds how many bytes of an inner one are live. The
// bound is exact at every moment, also under concurrency: bytes are reserved before the
// inner allocator is called and released after it has freed them. [Limit.Used] never
// exceeds the bound, except where said below. It counts all live bytes but slack that is not known yet. What
// does not fit is refused with an error that wraps [ErrLimit] and [ErrOutOfMemory].
//
// Granted bytes are counted:
//
//   - If the inner allocator grants more than was asked for, the slack is counted
//     too. If it does not fit, the block goes back and the request is refused. A block that
//     has grown in place shrinks back; if it cannot, its slack is counted above the bound.
//   - A reallocation in place counts what the block grows by. So it is if [System] moves a
//     large block by its pages, of which there are never two. The inner allocator must be a
//     [Resizer], as those of this package are.
//   - Any other reallocation counts the old and the new block until it has ended, because the
//     inner allocator has both while it copies a block. At the bound, such blocks can be
//     freed, but neither grown nor shrunk.
//   - A block that grows and cannot stay is always copied if the inner allocator is an [Owner]: so the
//     slack is known while the old block can still be kept. Otherwise the slack is
//     counted when it is known, above the bound if need be. So it is if a block that
//     shrinks is granted more than both sizes together.
//
// Zeroing and ownership are those of the inner allocator. Several goroutines may use a
// Limit at once if they may use that. Free a block through the Limit that it came from,
// or a view of it: a block of another one is taken back too, and its bytes count as
// freed here. Without an Owner, reallocating a block that is not live is ErrLimit at
// the bound. Limit costs no memory. It costs one atomic operation to allocate, a second
// one if there is slack, and one to free; all goroutines share one cache line for it.
type Limit struct {
	inner Allocator
	owner Owner // nil if inner is none
	bound *bound
}

var (
	_ Allocator = (*Limit)(nil)
	_ Owner     = (*Limit)(nil)
	_ Resizer   = (*Limit)(nil)
	_ Rewrapper = (*Limit)(nil)
)

// NewLimit returns an allocator of which at most max bytes of inner are live. Zero and
// less refuse everything. It panics if inner is nil.
func NewLimit(inner Allocator, max int64) *Limit {
	l := &Limit{inner, ownerOfInner("NewLimit(nil)", inner), &bound{bubble: bubble()}}
	l.SetMax(max)
	return l
}

// Allocate allocates from the inner allocator if l stays within the bound. If the
// request can never fit, the error says by how much to raise the bound.
func (l *Limit) Allocate(layout Layout) (Block, error) {
	if err := layout.Check(); err != nil {
		return Block{}, allocateError("Limit", layout, err)
	}
	if layout.Size == 0 {
		return Block{}, nil
	}
	return l.allocate(layout, Block{})
}

// allocate allocates a block that is to replace old, or one more if old is empty.
func (l *Limit) allocate(layout Layout, old Block) (Block, error) {
	asked := int64(layout.Size)
	if free, ok := l.bound.reserve(asked); !ok {
		return Block{}, l.bound.refusal(layout, old, asked, free)
	}
	unused := asked // what is to be released, also if the inner allocator panics or ends the goroutine
	defer func() {
		if unused != 0 {
			l.bound.release(unused)
		}
	}()
	b, err := l.inner.Allocate(layout)
	if err != nil {
		return b, err
	}
	unused = 0
	granted := int64(b.size)
	if granted == asked {
		return b, nil
	}
	if free, ok := l.bound.reserve(granted - asked); !ok {
		err := l.bound.refusal(layout, old, granted, free+asked)
		if back := l.inner.Free(b); back != nil {
			return Block{}, bothFailed(err, back) // what was asked for stays reserved: the block is live
		}
		unused = asked
		return Block{}, err
	}
	return b, nil
}

// Reallocate reallocates b by the inner allocator: in place if that can, and what is added stays
// within the bound. Otherwise the old and the new block together must.
func (l *Limit) Reallocate(b Block, size uintptr) (Block, error) {
	if b.IsZero() {
		return b, reallocateError("Limit", b, size, errEmptyReallocate)
	}
	layout := b.layout(size)
	if err := layout.Check(); err != nil {
		return b, reallocateError("Limit", b, size, err)
	}
	if b.IsRaw() {
		return l.reallocateRaw(b, size)
	}
	if _, ok := l.inner.(Resizer); ok && size > 0 {
		n, err := l.resize(layout, b)
		if !errors.Is(err, ErrWouldMove) {
			return n, err
		}
		if errors.Is(err, errRemap) {
			return l.remap(layout, b)
		}
	}
	live := l.owner != nil && l.owner.Owns(b)
	if live && size > b.size {
		return l.grow(layout, b)
	}
	asked := int64(size)
	if asked > 0 {
		if free, ok := l.bound.reserve(asked); !ok {
			if l.owner != nil && !live {
				return b, reallocateError("Limit", b, size, errUnknown)
			}
			return b, l.bound.refusal(layout, b, asked, free)
		}
	}
	unused := asked // as in allocate
	defer func() {
		if unused != 0 {
			l.bound.release(unused)
		}
	}()
	n, err := l.inner.Reallocate(b, size)
	if err != nil {
		return n, err
	}
	unused = int64(b.size) + asked - int64(n.size)
	return n, nil
}

// reallocateRaw reallocates a block that FromRaw made.
func (l *Limit) reallocateRaw(b Block, size uintptr) (Block, error) {
	live, err := Granted(l.inner, b)
	if err != nil {
		return b, reallocateError("Limit", b, size, err)
	}
	if live.IsRaw() {
		return b, reallocateError("Limit", b, size, errUnknown)
	}
	n, err := l.Reallocate(live, size)
	if err != nil {
		return b, err
	}
	return n, nil
}

// grow moves b into a block of the given layout.
func (l *Limit) grow(layout Layout, b Block) (Block, error) {
	n, err := l.allocate(layout, b)
	if err != nil {
		return b, err
	}
	copy(n.Bytes(), b.Bytes())
	if err := replace(l, b, l, n); err != nil {
		return b, err
	}
	return n, nil
}

// Free gives b back to the inner allocator.
func (l *Limit) Free(b Block) error {
	if b.IsRaw() {
		var err error
		if b, err = Granted(l.inner, b); err != nil {
			return freeError("Limit", b, err)
		}
	}
	if err := l.inner.Free(b); err != nil {
		return err
	}
	l.bound.release(int64(b.size))
	return nil
}

// Owns reports whether the inner allocator owns b, false if that is no Owner.
func (l *Limit) Owns(b Block) bool { return l.owner != nil && l.owner.Owns(b) }

// Find returns what the inner allocator finds, nothing if that is no [Finder].
func (l *Limit) Find(p unsafe.Pointer) (Block, bool) { return findIn(l.inner, p) }

// Unwrap returns the inner allocator.
func (l *Limit) Unwrap() Allocator { return l.inner }

// Rewrap returns a Limit over another view of the inner allocator, with the same bound
// and the same bytes.
func (l *Limit) Rewrap(view func(Allocator) Allocator) Allocator {
	return &Limit{view(l.inner), l.owner, l.bound}
}

// String returns, for example, "Limit 1.0 GiB".
func (l *Limit) String() string { return "Limit " + sizeText(l.Max()) }

// Used returns how many bytes count against the bound: those of live blocks, and those
// reserved for requests under way.
func (l *Limit) Used() int64 {
	l.bound.mu.Lock()
	defer l.bound.mu.Unlock()
	return l.bound.max - l.bound.free.Load()
}

// Max returns the bound in bytes.
func (l *Limit) Max() int64 {
	l.bound.mu.Lock()
	defer l.bound.mu.Unlock()
	return l.bound.max
}

// SetMax changes the bound to max bytes, for all views. After it has returned, no
// request is granted that does not fit the new bound. A bound below Used frees nothing:
// requests are refused until enough has been freed. Zero and less refuse everything.
// Requests that wait in [Limit.AllocateContext] are granted or refused accordingly.
func (l *Limit) SetMax(max int64) {
	if max < 0 {
		max = 0
	}
	s := l.bound
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free.Add(max - s.max)
	s.max = max
	refused, served := s.refuse(), s.serve()
	if !refused || !served {
		panic(outOfReach)
	}
}

// bound is the state that the views of one Limit share. It keeps the bytes left as one
// number, not the bytes used and the bound. So one atomic operation decides whether a
// request fits, also beside SetMax.
type bound struct {
	free atomic.Int64 // max less what is used; below zero if max was lowered that far

	bubble  int          // the bubble that the Limit was made in
	waiting atomic.Int64 // len(queue)

	mu    sync.Mutex // held to change max, so that with it max less free is what is used
	max   int64
	queue []*waiter // in the order in which they came
}

// reserve takes size bytes, more than zero, if they are left. It returns how many were
// left.
func (s *bound) reserve(size int64) (free int64, ok bool) {
	for {
		free = s.free.Load()
		if size > free {
			return free, false
		}
		if s.free.CompareAndSwap(free, free-size) {
			return free, true
		}
	}
}

func (s *bound) release(size int64) {
	s.free.Add(size)
	if s.waiting.Load() > 0 {
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.serve() {
			panic(outOfReach)
		}
	}
}

// refusal is the error for a block that was not granted: layout was asked for, granted
// bytes were needed, and free were left. If the block was to replace old, both count.
func (s *bound) refusal(layout Layout, old Block, granted, free int64) error {
	what := fmt.Sprintf("%d B requested", layout.Size)
	if granted != int64(layout.Size) {
		what += fmt.Sprintf(" and %d B granted", granted)
	}
	if old.size > 0 {
		what += fmt.Sprintf(" beside the %d B of the block", old.size)
	}
	err := s.refusalOf(what, granted+int64(old.size), free)
	if old.IsZero() {
		return allocateError("Limit", layout, err)
	}
	return reallocateError("Limit", old, layout.Size, err)
}

// refusalOf is the error for what was asked for: the bound must be at least that, and free bytes were left.
func (s *bound) refusalOf(what string, least, free int64) error {
	s.mu.Lock()
	max := s.max
	s.mu.Unlock()
	remedy := "free blocks or raise it by SetMax"
	if least > max {
		remedy = fmt.Sprintf("that can never fit: raise the limit by %d B with SetMax, or ask for less", least-max)
	}
	return fmt.Errorf("%w: %w: %s, %d B used, limit %d B: %s", ErrOutOfMemory, ErrLimit, what, max-free, max, remedy)
}

var errUnknown = fmt.Errorf("%w: reallocate a live block of the allocator it came from", ErrNotOwned)
