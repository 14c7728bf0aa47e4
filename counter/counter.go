// Package counter counts what goes through an allocator: operations, bytes and
// blocks, live and in all. A [Counter] does the counting; [Stats] is a snapshot
// of it; a [Source] is whatever can give one.
package counter

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/alloctrace/alloctrace/internal/shard"
)

// A Source can say how an allocator stands. It is all that exporters and tests
// need to know of one.
type Source interface {
	Stats() Stats
}

// A Counter counts operations on blocks. The zero Counter is ready; [Exact] makes
// one whose peak is exact. It may be used by several goroutines at once and must
// not be copied.
//
// The methods that count are called after the operation they count: Allocate
// before the block is handed on, so that nobody can free a block that is not yet
// counted, and Free once its memory is given back. The live figure therefore
// never falls below zero, and is ahead of the truth by no more than the frees
// that are under way; a free that fails has nothing to undo. Sizes are in bytes;
// blocks of size zero are not counted.
//
// A processor counts in words of its own once it has counted some 64 blocks, and needs
// no atomic operation for a block whose size is a power of two less than 512 KiB: it
// adds one to a count. Other sizes take another addition, and so do blocks larger than
// what was asked for. What has 512 KiB or more, is among the first 64 of its size, or
// comes when 128 have come or gone since, costs an atomic addition and two loads for
// the peak. A Counter takes 5 KiB, and 4.75 KiB more for each processor that counts in
// it, and a word for each other, which is all that it ever allocates. Where the Go runtime cannot be asked to keep a
// goroutine on its processor, as under the race detector, goroutines are told apart by
// their stacks, four shards a processor, 64 at most, and additions are atomic; the
// build tag alloctrace_nolinkname asks for that.
type Counter struct {
	tallies atomic.Pointer[atomic.Pointer[tally]] // the first of shard.Own, nil as long as home is enough
	exact   bool
	_       [128]byte // keeps what is read by all off the cache lines that some write

	level
	_ [128]byte

	home tally

	failedAllocations   atomic.Int64
	failedReallocations atomic.Int64
	failedFrees         atomic.Int64

	shown    atomic.Int64 // the most that a snapshot of it and descendants has had as live
	mu       sync.Mutex
	children []*Counter
}

var _ Source = (*Counter)(nil)

// Exact returns a Counter whose peak is exact to the byte, whatever the number of
// goroutines, as tests want it. It costs one atomic addition more for each operation,
// which all goroutines make to the same word: it does not scale with processors.
func Exact() *Counter {
	return &Counter{exact: true}
}

// Allocate counts a successful allocation of a block of granted bytes, of which
// requested were asked for.
func (c *Counter) Allocate(requested, granted uintptr) {
	p := shard.Pin()
	if first := c.tallies.Load(); first != nil && p.Index < shard.Own && requested == granted {
		if t := nth(first, p.Index).Load(); t != nil && powerOfTwo(granted) {
			class := classOf(granted)
			n := p.Add(&t.flows[allocated].powers[class], 1)
			if n&int64(t.mask[class].Load()) == 0 {
				c.tell(p, t, int64(granted), n)
			}
			p.Unpin()
			return
		}
	}
	c.count(p, allocated, requested, granted).Unpin()
}

// Reallocate counts a successful reallocation of a block of old bytes into one
// of granted bytes, of which requested were asked for. Zero granted bytes means
// that the block was freed by it.
func (c *Counter) Reallocate(old, requested, granted uintptr) {
	p := c.count(shard.Pin(), reallocatedFrom, old, old)
	c.count(p, reallocatedTo, requested, granted).Unpin()
}

// Free counts a successful free of a block of size bytes.
func (c *Counter) Free(size uintptr) {
	p := shard.Pin()
	if first := c.tallies.Load(); first != nil && p.Index < shard.Own {
		if t := nth(first, p.Index).Load(); t != nil && powerOfTwo(size) {
			class := classOf(size)
			n := p.Add(&t.flows[freed].powers[class], 1)
			if n&int64(t.mask[class].Load()) == 0 {
				c.tell(p, t, -int64(size), n)
			}
			p.Unpin()
			return
		}
	}
	c.count(p, freed, size, size).Unpin()
}

// FailAllocate counts an allocation that failed. No byte or block changes.
func (c *Counter) FailAllocate() { c.failedAllocations.Add(1) }

// FailReallocate counts a reallocation that failed and left its block live.
func (c *Counter) FailReallocate() { c.failedReallocations.Add(1) }

// FailFree counts a free that was refused.
func (c *Counter) FailFree() { c.failedFrees.Add(1) }

// Child returns a new Counter whose counts are part of c's as well, and which is
// exact if c is. They are added up when c is read, so that the child costs what a
// Counter of its own costs. It is kept for as long as c is.
//
// A block that is counted as allocated by one and as freed by another is counted
// right in any Counter that has both as descendants.
func (c *Counter) Child() *Counter {
	child := &Counter{exact: c.exact}
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
