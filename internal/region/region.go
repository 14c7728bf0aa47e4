// Package region has what a context knows of the regions of work that it is inside of.
// Package tracer makes them, and an alloctrace.Proxy counts in them.
package region

import (
	"context"

	"github.com/alloctrace/alloctrace/counter"
)

// A Region is what operations inside it count in.
type Region struct {
	counter.Counter
	Outer   *Region // the one around it, nil if there is none
	Observe Observer
}

// An Observer is what a region has beside its counts.
type Observer interface {
	// Failed is called for each failure inside the region, but for those inside regions
	// inside it.
	Failed(ctx context.Context, op string, size, align uintptr, err error)
}

type key struct{}

// NewContext returns a context that is inside r.
func NewContext(ctx context.Context, r *Region) context.Context {
	return context.WithValue(ctx, key{}, r)
}

// From returns the innermost region that ctx is inside of, nil if there is none.
func From(ctx context.Context) *Region {
	r, _ := ctx.Value(key{}).(*Region)
	return r
}

type countedKey struct{}

// Counted returns a context for allocators below one that counts in r, the innermost region of
// ctx: they must not count there again.
func Counted(ctx context.Context, r *Region) context.Context {
	return context.WithValue(ctx, countedKey{}, r)
}

// ToCount returns the innermost region that ctx is inside of, nil if there is none or an
// allocator above counts there.
func ToCount(ctx context.Context) *Region {
	r := From(ctx)
	if r != nil && ctx.Value(countedKey{}) == r {
		return nil
	}
	return r
}

// Allocate, Reallocate and Free count in r and in all regions around it. The nil Region is
// none.

// Allocate is [counter.Counter.Allocate].
func (r *Region) Allocate(requested, granted uintptr) {
	for ; r != nil; r = r.Outer {
		r.Counter.Allocate(requested, granted)
	}
}

// Reallocate is [counter.Counter.Reallocate].
func (r *Region) Reallocate(old, requested, granted uintptr) {
	for ; r != nil; r = r.Outer {
		r.Counter.Reallocate(old, requested, granted)
	}
}

// Free is [counter.Counter.Free].
func (r *Region) Free(size uintptr) {
	for ; r != nil; r = r.Outer {
		r.Counter.Free(size)
	}
}

// Fail counts a failure of the operation op, which is allocate, reallocate or free.
func (r *Region) Fail(op string) {
	for ; r != nil; r = r.Outer {
		switch op {
		case "allocate":
			r.FailAllocate()
		case "reallocate":
			r.FailReallocate()
		default:
			r.FailFree()
		}
	}
}
