package blockalloc

import (
	"fmt"
	"unsafe"
)

// Scoped is an [Allocator] that takes one piece of memory from a parent, as [Bump]
// does, and frees by scopes: [Scoped.Scope] frees what was allocated inside it when it
// returns. Scopes nest. While one is open, its outer one refuses to allocate,
// reallocate, free and open another, with [ErrScoped]. So no block outlives its scope,
// and none is allocated where it would be freed too early.
//
//	err := mem.Scope(func(inner *blockalloc.Scoped) error {
//		b, err := inner.Allocate(blockalloc.BlockLayout(4 << 10))
//		…
//	}) // b is freed, also if the function panics
//
// Blocks have exactly the size asked for, and are cleared if [Layout].Zeroed asks for that. The memory can be used to
// its last byte. Free and Reallocate work in place for the newest block.
//
// A scope owns exactly the blocks that were allocated from it, not those of outer or
// inner scopes. A foreign free, a second free and one of the wrong size are errors.
// When a scope has ended, it refuses everything with [ErrClosed], and nobody owns its
// blocks. A wrapper, such as a counting proxy, does not see blocks end with their
// scope.
//
// Allocate, and Free of the newest block, each cost about one atomic addition. Free of
// another block among n takes log n steps. A block takes 24 bytes (16 with 32-bit
// addresses) on the Go heap beside its padding, which are reused. Opening a scope
// allocates one Scoped there.
//
// A Scoped and all its scopes are for one goroutine at a time; the race detector
// reports two. Close the root, or its memory stays allocated in the parent.
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
	_ Resizer   = (*Scoped)(nil)
)

// NewScoped returns a Scoped on size bytes of memory, which it takes from parent in one
// piece. The piece is aligned to a page, or if it is smaller, to the largest power of
// two in size. The parent's error is returned unchanged; size zero is [ErrBadLayout].
// It panics if parent is nil.
func NewScoped(parent Allocator, size uintptr) (*Scoped, error) {
	a, err := newBumper("NewScoped", "Scoped", parent, size)
	if err != nil {
		return nil, err
	}
	return &Scoped{bumper: &a}, nil
}

// Scope calls fn with a new scope, and frees the scope's blocks when fn returns, panics
// or ends the goroutine. It returns fn's error unchanged.
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
	defer inner.leave()
	return fn(inner)
}

// leave ends the scope s.
func (s *Scoped) leave() {
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

// waiting returns nil if s may be used now, or why not.
func (s *Scoped) waiting() error {
	switch {
	case s.ended:
		return fmt.Errorf("%w: the scope has ended: use it inside its function", ErrClosed)
	case s.inner != nil:
		return fmt.Errorf("%w: use that one until its function returns", ErrScoped)
	}
	return nil
}

// waitingWith is waiting for an operation on b. Its error also says if b is no live
// block of s.
func (s *Scoped) waitingWith(b Block) error {
	err := s.waiting()
	if err != nil && !s.owns(b) {
		return fmt.Errorf("%w: %w", ErrNotOwned, err)
	}
	return err
}

// Allocate returns a block of exactly l.Size bytes, cleared if l.Zeroed asks for that. While an inner scope is
// open it refuses every size, even zero, with [ErrScoped]; after its own end with
// [ErrClosed].
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

// Reallocate keeps b in place if it shrinks, or if it is the newest block and there is
// room behind it. Otherwise it copies b into a new block. While an inner scope is open
// it refuses with [ErrScoped].
func (s *Scoped) Reallocate(b Block, size uintptr) (Block, error) {
	s.bumper.guard.use()
	if s.inner != nil || s.ended {
		err := s.waitingWith(b)
		if b.IsZero() {
			err = errEmptyReallocate
		} else if bad := b.layout(size).Check(); bad != nil {
			err = bad
		}
		return b, reallocateError("Scoped", b, size, err)
	}
	return s.bumper.Reallocate(b, size)
}

// Resize changes the size of b if it shrinks, or if it is the newest block and there is room
// behind it. While an inner scope is open it refuses with [ErrScoped].
func (s *Scoped) Resize(b Block, size uintptr) (Block, error) {
	s.bumper.guard.use()
	if s.inner != nil || s.ended {
		_, err := checkResize(b, size)
		if err == nil {
			err = s.waitingWith(b)
		}
		return b, resizeError("Scoped", b, size, err)
	}
	return s.bumper.Resize(b, size)
}

// Free gives back the newest block with its padding at once. It marks any other block
// as freed: its memory comes back when all blocks above it are freed, at the latest
// with the scope. While an inner scope is open it refuses with [ErrScoped].
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

// Owns reports whether b is a live block that was allocated from s itself.
func (s *Scoped) Owns(b Block) bool {
	s.bumper.guard.use()
	return s.owns(b)
}

func (s *Scoped) owns(b Block) bool {
	return !s.ended && s.bumper.find(b, s.first, s.end()) >= 0
}

// end returns the index behind the last record of s, which has not ended.
func (s *Scoped) end() int {
	if s.inner != nil {
		return s.inner.first
	}
	return len(s.bumper.records)
}

// Find returns the live block that was allocated from s itself and holds the byte at p. Among n blocks it takes
// log n steps.
func (s *Scoped) Find(p unsafe.Pointer) (Block, bool) {
	s.bumper.guard.use()
	if s.ended {
		return Block{}, false
	}
	return s.bumper.holding(uintptr(p), s.first, s.end())
}

// Used returns how many bytes lie beneath the end of the newest block of all scopes:
// live blocks, padding, and freed blocks whose memory is not back yet.
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

// Close frees all blocks of the root and gives the memory back to the parent. After it,
// Allocate fails with [ErrClosed]. If the parent refuses, Close returns its error
// unchanged, nothing has changed, and Close can be called again. Closing a closed root
// does nothing. While a scope is open, and on an inner scope, it is refused with
// [ErrScoped].
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
