package blockalloc

import "fmt"

// Scoped is an [Allocator] that takes one piece of memory from a parent, as [Bump]
// does, and frees by scopes: what is allocated inside [Scoped.Scope] is freed when
// that returns. Scopes nest. While one is open, its outer one waits: it refuses to
// allocate, to reallocate and to free, and to open a second scope, with
// [ErrScoped]. So no block outlives what it was allocated for, and none is
// allocated where it would be freed too early.
//
//	err := mem.Scope(func(inner *blockalloc.Scoped) error {
//		b, err := inner.Allocate(blockalloc.BlockLayout(4 << 10))
//		…
//	}) // b is freed, also if the function panics
//
// Blocks have exactly the size asked for and are not zeroed. The memory can be
// used to its last byte. Free and Reallocate work in place for the newest block.
//
// Each scope owns the blocks allocated from it, exactly, and no others: neither
// those of outer nor those of inner scopes. A foreign free, a second free and one
// of the wrong size are errors. When a scope has ended, its Scoped refuses
// everything with [ErrClosed], and nobody owns its blocks. What wraps a Scoped,
// such as a counting proxy, is not told of blocks that end with their scope.
//
// Allocate, and Free of the newest block, each cost about as much as one atomic
// addition; Free of another block searches n blocks in log n steps. A block
// takes 24 bytes (16 where addresses have 32 bits) on the Go heap beside its
// padding, which are used again; opening a scope allocates one Scoped there.
//
// A Scoped and all scopes inside it are for one goroutine at a time; the race
// detector reports two. The root must be closed, or its memory stays allocated in
// the parent.
type Scoped struct {
	bumper *bumper // of the root and all its scopes
	outer  *Scoped
	inner  *Scoped // the open scope
	first  int     // the number of records before those of this scope
	ended  bool
}

var (
	_ Allocator = (*Scoped)(nil)
	_ Owner     = (*Scoped)(nil)
)

// NewScoped returns a Scoped on size bytes of memory, which it takes from parent
// in one piece, aligned to a page or, if it is smaller, to the power of two that
// fits into it. A parent's error comes back as it is; size zero is [ErrBadLayout].
func NewScoped(parent Allocator, size uintptr) (*Scoped, error) {
	a, err := newBumper("NewScoped", "Scoped", parent, size)
	if err != nil {
		return nil, err
	}
	return &Scoped{bumper: &a}, nil
}

// Scope calls fn with a scope that ends when fn returns, panics or exits the
// goroutine: its blocks are freed, and the memory is used as far as before. It
// returns fn's error as it is.
func (s *Scoped) Scope(fn func(inner *Scoped) error) error {
	s.bumper.guard.use()
	err := s.waiting()
	if err == nil && s.bumper.memory.IsZero() {
		err = ErrClosed
	}
	if err != nil {
		return fmt.Errorf("blockalloc: Scoped.Scope: %w", err)
	}
	inner := &Scoped{bumper: s.bumper, outer: s, first: len(s.bumper.records)}
	s.inner, s.bumper.first = inner, inner.first
	defer inner.end()
	return fn(inner)
}

func (s *Scoped) end() {
	s.bumper.guard.use()
	if s.ended { // with an outer one: its function ran in a coroutine, and was left behind
		return
	}
	for n := s; n != nil; n = n.inner {
		n.ended = true
	}
	s.bumper.cut(s.first)
	s.outer.inner, s.bumper.first = nil, s.outer.first
}

// waiting says why s must not be used now, nil if it may be.
func (s *Scoped) waiting() error {
	switch {
	case s.ended:
		return fmt.Errorf("%w: the scope has ended: use it inside its function", ErrClosed)
	case s.inner != nil:
		return fmt.Errorf("%w: use that one until its function returns", ErrScoped)
	}
	return nil
}

// waitingWith is waiting for an operation on b, and says so if b is no live block
// of s either.
func (s *Scoped) waitingWith(b Block) error {
	err := s.waiting()
	if err != nil && !s.owns(b) {
		return fmt.Errorf("%w: %w", ErrNotOwned, err)
	}
	return err
}

// Allocate returns a block of exactly l.Size bytes, not zeroed. While an inner
// scope is open it refuses every size, even zero, with [ErrScoped], and after the
// end of its own with [ErrClosed].
func (s *Scoped) Allocate(l Layout) (Block, error) {
	s.bumper.guard.use()
	if s.inner != nil || s.ended {
		err := s.waiting()
		if bad := l.Check(); bad != nil {
			err = bad
		}
		return Block{}, allocateError("Scoped", l, err)
	}
	return s.bumper.Allocate(l)
}

// Reallocate keeps b where it is when it shrinks, and when it is the newest block
// and there is room behind it. Otherwise it copies b into a new block. While an
// inner scope is open it refuses with [ErrScoped].
func (s *Scoped) Reallocate(b Block, size uintptr) (Block, error) {
	s.bumper.guard.use()
	if s.inner != nil || s.ended {
		err := s.waitingWith(b)
		if b.IsZero() {
			err = errEmptyReallocate
		} else if bad := (Layout{size, b.align}).Check(); bad != nil {
			err = bad
		}
		return b, reallocateError("Scoped", b, size, err)
	}
	return s.bumper.Reallocate(b, size)
}

// Free gives back the newest block with its padding, at once. Any other block it
// remembers as freed: its memory comes back when all blocks above it are freed, at
// the latest with the scope. While an inner scope is open it refuses with
// [ErrScoped].
func (s *Scoped) Free(b Block) error {
	s.bumper.guard.use()
	if b.IsZero() {
		return nil
	}
	if s.inner != nil || s.ended {
		return freeError("Scoped", b, s.waitingWith(b))
	}
	return s.bumper.Free(b)
}

// Owns reports whether b is a live block that was allocated from s itself, not
// from an inner or outer scope.
func (s *Scoped) Owns(b Block) bool {
	s.bumper.guard.use()
	return s.owns(b)
}

func (s *Scoped) owns(b Block) bool {
	if s.ended {
		return false
	}
	end := len(s.bumper.records)
	if s.inner != nil {
		end = s.inner.first
	}
	return s.bumper.find(b, s.first, end) >= 0
}

// Used returns how many bytes lie beneath the end of the newest block of all
// scopes: live blocks, padding, and freed blocks whose memory is not back yet.
func (s *Scoped) Used() int64 { return s.bumper.Used() }

// Size returns how many bytes there are, used or not: as many as the parent
// granted, which may be more than was asked for. It is 0 once the root is closed.
func (s *Scoped) Size() int64 { return s.bumper.Size() }

// Parent returns the allocator that the memory came from: the outer scope, or the
// root's parent.
func (s *Scoped) Parent() Allocator {
	if s.outer != nil {
		return s.outer
	}
	return s.bumper.parent
}

// Close, of the root, frees all blocks and gives the memory back to the parent.
// After it, Allocate fails with [ErrClosed]. If the parent refuses, its error comes
// back, the Scoped and its blocks are what they were, and Close can be called
// again. Closing a closed root does nothing. While a scope is open, Close is
// refused with [ErrScoped], as it is of an inner scope: that ends with its
// function.
func (s *Scoped) Close() error {
	s.bumper.guard.use()
	err := s.waiting()
	if err == nil && s.outer != nil {
		err = fmt.Errorf("%w: it ends when its function returns, and only the root is closed", ErrScoped)
	}
	if err != nil {
		return fmt.Errorf("blockalloc: Scoped.Close: %w", err)
	}
	return s.bumper.close()
}
