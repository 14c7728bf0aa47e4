// Package region has what a context knows of the regions of work that it is inside of.
// Package tracer makes them, and an alloctrace.Proxy counts in them.
package region

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alloctrace/alloctrace/internal/shard"
	"github.com/alloctrace/alloctrace/internal/waits"
)

// A Region is what operations inside it count in: exactly, and with an exact peak. The zero
// Region is ready. It must not be copied.
//
// An operation costs an atomic operation and some additions for each region that it counts for. One
// that makes a peak costs two, or a lock if several processors count in the region. A region
// allocates on the Go heap when a second processor first counts in it, and when a child does.
type Region struct {
	Outer   *Region // the one around it, nil if there is none
	Observe Observer

	owner atomic.Int32 // the processor that counts in first, plus one; 0 if there is none yet, or several
	first cell
	peak  atomic.Int64         // see cell.room
	more  atomic.Pointer[more] // nil until it is needed
}

// more is what few regions have.
type more struct {
	mu    sync.Mutex                                   // held by what raises the peak, where several processors count
	cells atomic.Pointer[[]atomic.Pointer[paddedCell]] // of all processors, once there are several

	children          children
	failures          [3]atomic.Int64 // allocate, reallocate, free
	dissolved         atomic.Int64    // blocks that were reallocated to size zero
	moved             atomic.Int64    // operations that moved blocks out
	movedIn, movedOut movement
	waits, waited     atomic.Int64 // nanoseconds
}

type movement struct{ blocks, bytes atomic.Int64 }

// An Observer is what a region has beside its counts.
type Observer interface {
	// Failed is called for each failure inside the region, but for those inside regions
	// inside it.
	Failed(ctx context.Context, op string, size, align uintptr, err error)

	// Name returns the region's name, "" if it has none.
	Name() string

	// Peaked is called when the peak reaches another power of two, while a trace of the Go runtime
	// is taken.
	Peaked(bytes int64)
}

type (
	key      struct{} // of the innermost region
	countKey struct{} // of that in which to count
)

// Value returns what a context that is inside r, and in no region inside it, has for a key of
// this package or of waits; nil for other keys.
func (r *Region) Value(k any) any {
	switch k.(type) {
	case key, countKey, waits.Key:
		return r
	}
	return nil
}

// From returns the innermost region that ctx is inside of, nil if there is none.
func From(ctx context.Context) *Region {
	r, _ := ctx.Value(key{}).(*Region)
	return r
}

// Name returns the name of r.
func (r *Region) Name() string {
	if r.Observe == nil {
		return ""
	}
	return r.Observe.Name()
}

// Counted returns a context for allocators below one that counts in the innermost region of ctx:
// they must not count there again.
func Counted(ctx context.Context) context.Context {
	return context.WithValue(ctx, countKey{}, (*Region)(nil))
}

// ToCount returns the innermost region that ctx is inside of, nil if there is none or an
// allocator above counts there.
func ToCount(ctx context.Context) *Region {
	r, _ := ctx.Value(countKey{}).(*Region)
	return r
}

// The following count in r and in all regions around it. The nil Region is none. by is the name of
// the child that operates, nil if it is none.

// Allocate counts an allocation of a block of granted bytes, of which requested were asked for.
func (r *Region) Allocate(requested, granted uintptr, by *string) {
	if granted == 0 || r == nil {
		return
	}
	p := shard.Pin()
	for ; r != nil; r = r.Outer {
		if c, s := r.atHand(p, by); c != nil && requested == granted {
			if room := c.room.Load(); room >= int64(granted) && c.room.CompareAndSwap(room, room-int64(granted)) {
				p.Add(&c.allocations, 1)
				p.Add(&c.in, int64(granted))
				if s != nil {
					p.Add(&s.in, int64(granted))
				}
				continue
			}
		}
		p = r.allocate(p, int64(requested), int64(granted), by)
	}
	p.Unpin()
}

// Reallocate counts a reallocation of a block of old bytes into one of granted bytes, of which
// requested were asked for. Zero granted bytes means that the block was freed by it.
func (r *Region) Reallocate(old, requested, granted uintptr, by *string) {
	if r == nil {
		return
	}
	p := shard.Pin()
	for ; r != nil; r = r.Outer {
		p = r.reallocate(p, int64(old), int64(requested), int64(granted), by)
	}
	p.Unpin()
}

// Free counts a free of a block of size bytes.
func (r *Region) Free(size uintptr, by *string) {
	if size == 0 || r == nil {
		return
	}
	p := shard.Pin()
	for ; r != nil; r = r.Outer {
		if c, s := r.atHand(p, by); c != nil {
			p.Add(&c.frees, 1)
			p.Add(&c.out, int64(size))
			if s != nil {
				p.Add(&s.out, int64(size))
			}
			c.room.Add(int64(size))
		} else {
			p = r.free(p, int64(size), by)
		}
	}
	p.Unpin()
}

// Fail counts a failure of the operation op, which is allocate, reallocate or free.
func (r *Region) Fail(op string) {
	for ; r != nil; r = r.Outer {
		failures := &r.withMore().failures
		switch op {
		case "allocate":
			failures[0].Add(1)
		case "reallocate":
			failures[1].Add(1)
		default:
			failures[2].Add(1)
		}
	}
}

// Waited counts a wait for room.
func (r *Region) Waited(d time.Duration) {
	for ; r != nil; r = r.Outer {
		s := r.withMore()
		s.waits.Add(1)
		s.waited.Add(int64(d))
	}
}

// Move counts a block that was r's as to's. Regions around both have it before and after.
func (r *Region) Move(size uintptr, to *Region) {
	for out := r; out != nil; out = out.Outer {
		if !to.inside(out) {
			out.moveOut(int64(size))
		}
	}
	for in := to; in != nil; in = in.Outer {
		if !r.inside(in) {
			in.moveIn(int64(size))
		}
	}
}

// inside reports whether r is outer, or inside it.
func (r *Region) inside(outer *Region) bool {
	for ; r != nil; r = r.Outer {
		if r == outer {
			return true
		}
	}
	return false
}

// withMore returns what r has more, and makes it if it has nothing yet.
func (r *Region) withMore() *more {
	if m := r.more.Load(); m != nil {
		return m
	}
	r.more.CompareAndSwap(nil, new(more))
	return r.more.Load()
}

var nothingMore more

// hasMore returns what r has more, which is not to be written if it has nothing.
func (r *Region) hasMore() *more {
	if m := r.more.Load(); m != nil {
		return m
	}
	return &nothingMore
}
