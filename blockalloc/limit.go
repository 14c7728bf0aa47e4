package blockalloc

import (
	"fmt"
	"sync"
	"sync/atomic"
)

// Limit is an [Allocator] that bounds how many bytes of another one are live. The
// bound is exact at every moment and under concurrency: bytes are reserved before
// the inner allocator is asked, and released after it has taken them back, so that
// its live bytes are never more than [Limit.Used], but for slack that is not known
// yet, and Used is never more than the bound, not even briefly. What does not fit
// is refused with an error that wraps [ErrLimit] and also [ErrOutOfMemory], for
// those who need not tell them apart.
//
// Granted bytes are counted:
//
//   - If the inner allocator grants more than was asked for, the slack is counted
//     too; if it does not fit, the block goes back and the request is refused.
//   - A reallocation counts as the old and the new block until it has ended, for the
//     inner allocator has both while it moves a block. At the bound, blocks can be
//     freed, but neither grown nor shrunk.
//   - A block that grows always moves, if the inner allocator is an [Owner]: the
//     slack is then known while the old block can still be kept. Otherwise, and where
//     a block that shrinks is granted more than the old and the new size together,
//     that is counted once it is known, above the bound if need be.
//
// Zeroing and ownership are those of the inner allocator, and Limit may be used by
// several goroutines at once if that may. A block must be freed through the Limit
// that it came from, or a view of it: one that was allocated through another is taken back
// as well, and its bytes count as freed here. Around an allocator that is no Owner, there is
// no telling a block that is not live from one that does not fit: reallocating
// either at the bound is ErrLimit. Limit costs no memory, and one atomic
// operation to allocate, a second one where there is slack, and one to free; all
// goroutines share one cache line for it.
type Limit struct {
	inner Allocator
	owner Owner // nil if inner is none
	bound *bound
}

var (
	_ Allocator = (*Limit)(nil)
	_ Owner     = (*Limit)(nil)
	_ Rewrapper = (*Limit)(nil)
)

// NewLimit returns an allocator of which at most max bytes of inner are live. A
// negative bound is as good as zero: all is refused. It panics if inner is nil.
func NewLimit(inner Allocator, max int64) *Limit {
	l := &Limit{inner, ownerOfInner("NewLimit(nil)", inner), &bound{bubble: bubble()}}
	l.SetMax(max)
	return l
}

// Allocate allocates from the inner allocator if l stays within the bound. Of a request
// that can never fit the bound the error says so, and by how much that would have to be
// raised.
func (l *Limit) Allocate(layout Layout) (Block, error) {
	if err := layout.Check(); err != nil {
		return Block{}, allocateError("Limit", layout, err)
	}
	if layout.Size == 0 {
		return Block{}, nil
	}
	return l.allocate(layout, Block{})
}

// allocate allocates a block that is to take the place of old, or an additional one if
// that is empty.
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

// Reallocate reallocates b by the inner allocator if the old and the new block
// together stay within the bound.
func (l *Limit) Reallocate(b Block, size uintptr) (Block, error) {
	if b.IsZero() {
		return b, reallocateError("Limit", b, size, errEmptyReallocate)
	}
	layout := Layout{size, b.align}
	if err := layout.Check(); err != nil {
		return b, reallocateError("Limit", b, size, err)
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

// grow moves b into a block as layout says.
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
	if err := l.inner.Free(b); err != nil {
		return err
	}
	l.bound.release(int64(b.size))
	return nil
}

// Owns asks the inner allocator whether it owns b. It is false if that is no
// Owner.
func (l *Limit) Owns(b Block) bool { return l.owner != nil && l.owner.Owns(b) }

// Unwrap returns the inner allocator.
func (l *Limit) Unwrap() Allocator { return l.inner }

// Rewrap returns a Limit of another view of the inner allocator, with the same
// bound and the same bytes.
func (l *Limit) Rewrap(view func(Allocator) Allocator) Allocator {
	return &Limit{view(l.inner), l.owner, l.bound}
}

// String returns, for example, "Limit 1.0 GiB".
func (l *Limit) String() string { return "Limit " + sizeText(l.Max()) }

// Used returns how many bytes count against the bound: those of live blocks, and
// those that are reserved for requests being served.
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

// SetMax changes the bound to max bytes, for all views, at once: no request is
// granted after it has returned that would not fit the new bound. Less than what
// is used frees nothing: requests are refused until enough has been freed. A
// negative bound is as good as zero. Requests that wait in [Limit.AllocateContext] are
// granted or refused accordingly.
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

// bound is what the views of one Limit share. The bytes that are left are kept as
// one number, and not as those used and the bound, so that one atomic operation
// decides whether a request fits, whatever SetMax does meanwhile.
type bound struct {
	free atomic.Int64 // max less what is used; below zero if max was lowered that far

	bubble  int          // the bubble that the Limit was made in
	waiting atomic.Int64 // len(queue)

	mu    sync.Mutex // held to change max, so that with it max less free is what is used
	max   int64
	queue []*waiter // in the order in which they came
}

// reserve takes size bytes, which must be more than zero, if so many are left. It
// returns how many were left.
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

// refusal says why a block of so many granted bytes, as layout asks for, was not to be had
// when free were left. If it was to take the place of old, both count until it has.
func (s *bound) refusal(layout Layout, old Block, granted, free int64) error {
	s.mu.Lock()
	max := s.max
	s.mu.Unlock()
	what := fmt.Sprintf("%d B requested", layout.Size)
	if granted != int64(layout.Size) {
		what += fmt.Sprintf(" and %d B granted", granted)
	}
	if old.size > 0 {
		what += fmt.Sprintf(" beside the %d B of the block", old.size)
	}
	remedy := "free blocks or raise it by SetMax"
	if least := granted + int64(old.size); least > max {
		remedy = fmt.Sprintf("that can never fit: raise the limit by %d B with SetMax, or ask for less", least-max)
	}
	err := fmt.Errorf("%w: %w: %s, %d B used, limit %d B: %s", ErrOutOfMemory, ErrLimit, what, max-free, max, remedy)
	if old.IsZero() {
		return allocateError("Limit", layout, err)
	}
	return reallocateError("Limit", old, layout.Size, err)
}

var errUnknown = fmt.Errorf("%w: reallocate a live block of the allocator it came from", ErrNotOwned)
