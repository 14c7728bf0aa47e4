package blockalloc

import (
	"errors"
	"fmt"
	"sync/atomic"
)

// ErrInjected marks the failures that a [Failing] makes up.
var ErrInjected = errors.New("injected failure")

// Op is an operation of an [Allocator].
type Op int

// The operations.
const (
	OpAllocate Op = iota
	OpReallocate
	OpFree
)

// String returns "Allocate", "Reallocate" or "Free".
func (o Op) String() string {
	switch o {
	case OpAllocate:
		return "Allocate"
	case OpReallocate:
		return "Reallocate"
	case OpFree:
		return "Free"
	}
	return fmt.Sprintf("Op(%d)", int(o))
}

// A Call is what a [FailIf] function decides on.
type Call struct {
	Op     Op
	Layout Layout // what is asked for; of Free, the block's
	Block  Block  // what is to be reallocated or freed; of Allocate, empty
}

// Failing is an [Allocator] that makes some operations of another one fail, to
// show how a program does without memory. [FailAfter], [FailEvery] and [FailIf]
// make one; they can be nested.
//
// An injected failure does not reach the inner allocator, and a block that was to
// be reallocated or freed stays as it was. Its error wraps [ErrInjected] and, but
// for Free, [ErrOutOfMemory]. Operations that take no memory from the inner
// allocator cannot fail so and are not counted: those of size zero or on the empty
// block, and bad layouts, which are [ErrBadLayout] as ever. A block that is not live
// is refused by the inner allocator, if that is an [Owner], and not by injection.
//
// Zeroing, ownership and memory are those of the inner allocator, and Failing may
// be used by several goroutines at once if that may: which of the operations that
// run at the same time fail is then open, and how many is exact. An operation costs
// an atomic addition besides.
type Failing struct {
	inner Allocator
	owner Owner // nil if inner is none
	plan  *plan // shared by views
}

// plan says what is to fail and counts.
type plan struct {
	name  string
	fails func(nth int64, c Call) bool
	frees bool // whether Free is counted and can fail

	calls, injected atomic.Int64
}

var (
	_ Allocator = (*Failing)(nil)
	_ Owner     = (*Failing)(nil)
	_ Rewrapper = (*Failing)(nil)
)

// FailAfter returns an allocator that serves n calls of Allocate and Reallocate
// and fails all later ones. It panics if inner is nil or n negative.
func FailAfter(inner Allocator, n int64) *Failing {
	if n < 0 {
		panic(fmt.Sprintf("blockalloc: FailAfter(%d): pass how many calls are to be served, 0 or more", n))
	}
	return &Failing{inner, ownerOfInner("FailAfter", inner), &plan{
		name:  fmt.Sprintf("FailAfter(%d)", n),
		fails: func(nth int64, _ Call) bool { return nth > n },
	}}
}

// FailEvery returns an allocator that fails the nth call of Allocate and
// Reallocate, and every nth after that. It panics if inner is nil or n less than 1.
func FailEvery(inner Allocator, n int64) *Failing {
	if n < 1 {
		panic(fmt.Sprintf("blockalloc: FailEvery(%d): pass 1 to fail all calls, or more", n))
	}
	return &Failing{inner, ownerOfInner("FailEvery", inner), &plan{
		name:  fmt.Sprintf("FailEvery(%d)", n),
		fails: func(nth int64, _ Call) bool { return nth%n == 0 },
	}}
}

// FailIf returns an allocator that fails the calls of Allocate, Reallocate and
// Free for which f is true. If several goroutines use it at once, so they do f. It
// panics if inner or f is nil.
func FailIf(inner Allocator, f func(Call) bool) *Failing {
	if f == nil {
		panic("blockalloc: FailIf: the function must not be nil: pass one that says which calls fail")
	}
	return &Failing{inner, ownerOfInner("FailIf", inner), &plan{
		name:  "FailIf",
		fails: func(_ int64, c Call) bool { return f(c) },
		frees: true,
	}}
}

// Allocate fails, or allocates from the inner allocator.
func (f *Failing) Allocate(l Layout) (Block, error) {
	if l.Size > 0 && l.Check() == nil {
		if err := f.inject(Call{Op: OpAllocate, Layout: l}); err != nil {
			return Block{}, allocateError(f.plan.name, l, err)
		}
	}
	return f.inner.Allocate(l)
}

// Reallocate fails, or reallocates b by the inner allocator.
func (f *Failing) Reallocate(b Block, size uintptr) (Block, error) {
	l := Layout{size, b.align}
	if size > 0 && !b.IsZero() && l.Check() == nil {
		if err := f.inject(Call{OpReallocate, l, b}); err != nil {
			return b, reallocateError(f.plan.name, b, size, err)
		}
	}
	return f.inner.Reallocate(b, size)
}

// Free fails, or gives b back to the inner allocator.
func (f *Failing) Free(b Block) error {
	if f.plan.frees && !b.IsZero() {
		if err := f.inject(Call{OpFree, b.Layout(), b}); err != nil {
			return freeError(f.plan.name, b, err)
		}
	}
	return f.inner.Free(b)
}

func (f *Failing) inject(c Call) error {
	nth := f.plan.calls.Add(1)
	if !f.plan.fails(nth, c) || c.Op != OpAllocate && f.owner != nil && !f.owner.Owns(c.Block) {
		return nil
	}
	f.plan.injected.Add(1)
	if c.Op == OpFree {
		return fmt.Errorf("%w: call %d", ErrInjected, nth)
	}
	return fmt.Errorf("%w: %w: call %d", ErrOutOfMemory, ErrInjected, nth)
}

// Calls returns how many operations were counted: of FailAfter and FailEvery those
// of Allocate and Reallocate, of FailIf also those of Free.
func (f *Failing) Calls() int64 { return f.plan.calls.Load() }

// Injected returns how many operations were made to fail.
func (f *Failing) Injected() int64 { return f.plan.injected.Load() }

// Owns asks the inner allocator whether it owns b. It is false if that is no
// Owner.
func (f *Failing) Owns(b Block) bool { return f.owner != nil && f.owner.Owns(b) }

// Unwrap returns the inner allocator.
func (f *Failing) Unwrap() Allocator { return f.inner }

// Rewrap returns a Failing of another view of the inner allocator, with the same
// plan and counts.
func (f *Failing) Rewrap(view func(Allocator) Allocator) Allocator {
	return &Failing{view(f.inner), f.owner, f.plan}
}

// String returns, for example, "FailAfter(100)".
func (f *Failing) String() string { return f.plan.name }
