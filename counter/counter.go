// Package counter counts what goes through an allocator: operations, bytes and
// blocks, live and in all. A [Counter] does the counting; [Stats] is a snapshot
// of it; a [Source] is whatever can give one.
package counter

import (
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
)

// A Source can say how an allocator stands. It is all that exporters and tests
// need to know of one.
type Source interface {
	Stats() Stats
}

// A Counter counts operations on blocks. The zero Counter is ready. It may be
// used by several goroutines at once and must not be copied.
//
// The methods that count are called after the operation they count: Allocate
// before the block is handed on, so that nobody can free a block that is not yet
// counted, and Free once its memory is given back. The live figure therefore
// never falls below zero, and is ahead of the truth by no more than the frees
// that are under way; a free that fails has nothing to undo. Sizes are in bytes;
// blocks of size zero are not counted.
//
// Counting an operation on a block costs two uncontended atomic additions and an
// atomic load. Sizes that are no power of two cost one addition more, and so do
// blocks that are larger than what was asked for. A Counter takes 4 KiB.
type Counter struct {
	// A snapshot reads all that was acquired before all that was released. A
	// block that it sees acquired and not released was live at the moment
	// between the two passes, so that the sum is never more than what was live
	// then. To keep that true, everything that counts a release counts it in one
	// of the flows below after counting the acquisition (sync/atomic operations
	// are sequentially consistent).
	allocated, reallocatedTo flow
	reallocatedFrom, freed   flow
	slack                    atomic.Int64 // bytes granted beyond those requested
	live, peak               atomic.Int64 // bytes
	foreign                  atomic.Bool  // live has been below zero: blocks of another Counter were freed here
	failedAllocations        atomic.Int64
	failedReallocations      atomic.Int64
	failedFrees              atomic.Int64

	mu       sync.Mutex
	children []*Counter
}

var _ Source = (*Counter)(nil)

// A flow counts blocks that went one way for one reason. The bytes of blocks
// whose size is a power of two are known from their number.
type flow struct {
	powers    [NumClasses]atomic.Int64 // blocks of 1<<i bytes
	others    [NumClasses]atomic.Int64 // blocks of other sizes, by the power of two above
	otherSize atomic.Int64             // the bytes of all the others
}

// add counts one block; see total.add for the order.
func (f *flow) add(size uintptr) {
	if size&(size-1) == 0 {
		if size == 0 {
			return
		}
		f.powers[bits.TrailingZeros64(uint64(size))%NumClasses].Add(1)
		return
	}
	f.others[bits.Len64(uint64(size))%NumClasses].Add(1)
	f.otherSize.Add(int64(size))
}

// Allocate counts a successful allocation of a block of granted bytes, of which
// requested were asked for.
func (c *Counter) Allocate(requested, granted uintptr) {
	c.grow(int64(granted))
	c.allocated.add(granted)
	if granted != requested {
		c.slack.Add(int64(granted - requested))
	}
}

// Reallocate counts a successful reallocation of a block of old bytes into one
// of granted bytes, of which requested were asked for. Zero granted bytes means
// that the block was freed by it.
func (c *Counter) Reallocate(old, requested, granted uintptr) {
	c.reallocatedFrom.add(old)
	c.grow(int64(granted) - int64(old))
	if granted == 0 {
		return
	}
	c.reallocatedTo.add(granted)
	if granted != requested {
		c.slack.Add(int64(granted - requested))
	}
}

// Free counts a successful free of a block of size bytes.
func (c *Counter) Free(size uintptr) {
	c.freed.add(size)
	if c.live.Add(-int64(size)) < 0 {
		c.foreign.Store(true)
	}
}

// FailAllocate counts an allocation that failed. No byte or block changes.
func (c *Counter) FailAllocate() { c.failedAllocations.Add(1) }

// FailReallocate counts a reallocation that failed and left its block live.
func (c *Counter) FailReallocate() { c.failedReallocations.Add(1) }

// FailFree counts a free that was refused.
func (c *Counter) FailFree() { c.failedFrees.Add(1) }

// grow moves the live bytes by n and raises the peak to them. It runs before the
// acquisition is counted in a flow, so that no snapshot shows more live bytes
// than the peak.
func (c *Counter) grow(n int64) {
	live := c.live.Add(n)
	if live < 0 {
		c.foreign.Store(true)
	}
	for {
		peak := c.peak.Load()
		if live <= peak || c.peak.CompareAndSwap(peak, live) {
			return
		}
	}
}

// Child returns a new Counter whose counts are part of c's as well. They are
// added up when c is read, so that the child costs what a Counter of its own
// costs. It is kept for as long as c is.
//
// A block that is counted as allocated by one and as freed by another is counted
// right in any Counter that has both as descendants.
func (c *Counter) Child() *Counter {
	child := new(Counter)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.children = append(c.children, child)
	return child
}

// tree appends c and all its descendants to list.
func (c *Counter) tree(list []*Counter) []*Counter {
	list = append(list, c)
	c.mu.Lock()
	children := slices.Clip(c.children)
	c.mu.Unlock()
	for _, child := range children {
		list = child.tree(list)
	}
	return list
}
