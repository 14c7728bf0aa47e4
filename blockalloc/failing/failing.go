// Package failing makes operations of an allocator fail, to test a program without memory:
// after n calls, every nth call, or as a function decides.
// blocktest.CheckAllocationFailures fails each allocation of a scenario in turn.
package failing

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/injected"
)

// ErrInjected is wrapped by the errors that an [Allocator] injects. Its
// [blockalloc.ErrorType] is "injected".
var ErrInjected = injected.Err

// Op is an operation of an allocator.
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

// A Call is an operation that the function of [If] decides on.
type Call struct {
	Op     Op
	Layout blockalloc.Layout // what is asked for; of Free, the block's
	Block  blockalloc.Block  // what is to be reallocated or freed, as it was granted; of Allocate, empty
}

// An Allocator makes some operations of an inner one fail. [After], [Every] and [If]
// make one; they can be nested.
//
// An injected failure does not reach the inner allocator, and the block that was to be
// reallocated or freed stays as it was. Its error wraps [ErrInjected] and, except for
// Free, [blockalloc.ErrOutOfMemory]. Operations that need no memory do not fail so and
// are not counted: those of size zero or on the empty block, and bad layouts, which are
// [blockalloc.ErrBadLayout]. A block that is not live is
// refused by the inner allocator, if that is a [blockalloc.Owner], not by injection.
//
// Zeroing, ownership and memory are those of the inner allocator. Several goroutines
// may use an Allocator at once if they may use that: which of concurrent operations
// fail is open, but how many is exact. An operation costs an atomic addition.
type Allocator struct {
	inner blockalloc.Allocator
	owner blockalloc.Owner // nil if inner is none
	plan  *plan            // shared by views
}

// plan says what fails, and counts.
type plan struct {
	name  string
	fails func(nth int64, c Call) bool
	frees bool // whether Free is counted and can fail

	calls, injected atomic.Int64
}

var (
	_ blockalloc.Allocator = (*Allocator)(nil)
	_ blockalloc.Owner     = (*Allocator)(nil)
	_ blockalloc.Resizer   = (*Allocator)(nil)
	_ blockalloc.Finder    = (*Allocator)(nil)
	_ blockalloc.Rewrapper = (*Allocator)(nil)
)

// After returns an allocator that serves n calls of Allocate and Reallocate and fails
// all later ones. It panics if inner is nil or n is negative.
func After(inner blockalloc.Allocator, n int64) *Allocator {
	if n < 0 {
		panic(fmt.Sprintf("failing: After(%d): pass how many calls are to be served, 0 or more", n))
	}
	return &Allocator{inner, ownerOf("After", inner), &plan{
		name:  fmt.Sprintf("failing.After(%d)", n),
		fails: func(nth int64, _ Call) bool { return nth > n },
	}}
}

// Every returns an allocator that fails each nth call of Allocate and Reallocate. It
// panics if inner is nil or n is less than 1.
func Every(inner blockalloc.Allocator, n int64) *Allocator {
	if n < 1 {
		panic(fmt.Sprintf("failing: Every(%d): pass 1 to fail all calls, or more", n))
	}
	return &Allocator{inner, ownerOf("Every", inner), &plan{
		name:  fmt.Sprintf("failing.Every(%d)", n),
		fails: func(nth int64, _ Call) bool { return nth%n == 0 },
	}}
}

// If returns an allocator that fails the calls of Allocate, Reallocate and Free for
// which f returns true. Goroutines that use the allocator at once call f at once. It
// panics if inner or f is nil.
func If(inner blockalloc.Allocator, f func(Call) bool) *Allocator {
	if f == nil {
		panic("failing: If: f is nil: pass a function that says which calls fail")
	}
	return &Allocator{inner, ownerOf("If", inner), &plan{
		name:  "failing.If",
		fails: func(_ int64, c Call) bool { return f(c) },
		frees: true,
	}}
}

// Allocate fails or allocates from the inner allocator.
func (f *Allocator) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	if l.Size > 0 && l.Check() == nil {
		if err := f.inject(Call{Op: OpAllocate, Layout: l}); err != nil {
			return blockalloc.Block{}, fmt.Errorf("%s.Allocate(%v): %w", f.plan.name, l, err)
		}
	}
	return f.inner.Allocate(l)
}

// Reallocate fails or reallocates b by the inner allocator.
func (f *Allocator) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	l := b.Layout()
	l.Size = size
	if size > 0 && !b.IsZero() && l.Check() == nil {
		live, err := blockalloc.Granted(f.inner, b)
		if err != nil {
			return b, fmt.Errorf("%s.Reallocate(%v, %d): %w", f.plan.name, b, size, err)
		}
		if err := f.inject(Call{OpReallocate, l, live}); err != nil {
			return b, fmt.Errorf("%s.Reallocate(%v, %d): %w", f.plan.name, b, size, err)
		}
	}
	return f.inner.Reallocate(b, size)
}

// Resize fails as Reallocate does, or resizes b in place by the inner allocator, if that is a
// [blockalloc.Resizer]. It counts as Reallocate.
func (f *Allocator) Resize(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	l := blockalloc.Layout{Size: size, Align: b.Align()}
	if size > 0 && !b.IsZero() && l.Check() == nil {
		if err := f.inject(Call{OpReallocate, l, b}); err != nil {
			return b, fmt.Errorf("%s.Resize(%v, %d): %w", f.plan.name, b, size, err)
		}
	}
	return blockalloc.Resize(f.inner, b, size)
}

// Free fails or frees b in the inner allocator.
func (f *Allocator) Free(b blockalloc.Block) error {
	if f.plan.frees && !b.IsZero() {
		live, err := blockalloc.Granted(f.inner, b)
		if err != nil {
			return fmt.Errorf("%s.Free(%v): %w", f.plan.name, b, err)
		}
		if err := f.inject(Call{OpFree, live.Layout(), live}); err != nil {
			return fmt.Errorf("%s.Free(%v): %w", f.plan.name, b, err)
		}
	}
	return f.inner.Free(b)
}

func (f *Allocator) inject(c Call) error {
	nth := f.plan.calls.Add(1)
	if !f.plan.fails(nth, c) || c.Op != OpAllocate && f.owner != nil && !f.owner.Owns(c.Block) {
		return nil
	}
	f.plan.injected.Add(1)
	if c.Op == OpFree {
		return fmt.Errorf("%w: call %d", ErrInjected, nth)
	}
	return fmt.Errorf("%w: %w: call %d", blockalloc.ErrOutOfMemory, ErrInjected, nth)
}

// Calls returns how many operations were counted: those of Allocate and Reallocate, and
// with If also those of Free.
func (f *Allocator) Calls() int64 { return f.plan.calls.Load() }

// Injected returns how many operations failed by injection.
func (f *Allocator) Injected() int64 { return f.plan.injected.Load() }

// Owns reports whether the inner allocator owns b, false if that is no Owner.
func (f *Allocator) Owns(b blockalloc.Block) bool { return f.owner != nil && f.owner.Owns(b) }

// Find returns what the inner allocator finds, nothing if that is no [blockalloc.Finder].
func (f *Allocator) Find(p unsafe.Pointer) (blockalloc.Block, bool) {
	if finder, ok := f.inner.(blockalloc.Finder); ok {
		return finder.Find(p)
	}
	return blockalloc.Block{}, false
}

// Unwrap returns the inner allocator.
func (f *Allocator) Unwrap() blockalloc.Allocator { return f.inner }

// Rewrap returns an Allocator over another view of the inner one, with the same plan
// and counts.
func (f *Allocator) Rewrap(view func(blockalloc.Allocator) blockalloc.Allocator) blockalloc.Allocator {
	return &Allocator{view(f.inner), f.owner, f.plan}
}

// String returns, for example, "failing.After(100)".
func (f *Allocator) String() string { return f.plan.name }

// ownerOf returns the Owner that inner is, nil if it is none. It panics in the name of
// constructor if inner is nil.
func ownerOf(constructor string, inner blockalloc.Allocator) blockalloc.Owner {
	if inner == nil {
		panic("failing: " + constructor + "(nil): pass an allocator, such as blockalloc.Default()")
	}
	o, _ := blockalloc.OwnerOf(inner)
	return o
}
