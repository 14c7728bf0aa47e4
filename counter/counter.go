// Package counter counts what goes through an allocator: operations, bytes and
// blocks, live and in all. A [Counter] does the counting; [Stats] is a snapshot
// of it; a [Source] is whatever can give one.
package counter

import (
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
// A Counter takes 512 bytes until it is busy: until 64 blocks of a size have come or gone,
// or blocks of many sizes. Each of the first blocks costs two atomic additions or three.
// Then each processor gets 4.75 KiB of its own, the first time that it counts such a block,
// and a word for each other processor. It needs no atomic operation for a block whose size
// is a power of two less than 512 KiB: it adds one to a count. Other sizes take another
// addition, and so do blocks larger than what was asked for. What has 512 KiB or more, is
// among the first 64 of its size on the processor, or comes when 128 have come or gone
// since, costs an atomic addition and two loads for the peak.
//
// Where the Go runtime cannot be asked to keep a goroutine on its processor, as under the
// race detector, goroutines are distinguished by their stacks, four shards a processor, 64 at
// most, and additions are atomic; the build tag alloctrace_nolinkname asks for that.
type Counter struct {
	shards atomic.Pointer[atomic.Pointer[shardCounts]] // the first of shard.NumProcs, see slotAt; nil until one is needed
	shared atomic.Pointer[shardCounts]                 // for processors that have none; nil until it is needed
	family
	_ [8]byte // what follows is written more often, on cache lines of its own

	peakTracker
	failedAllocations   atomic.Int64
	failedReallocations atomic.Int64
	failedFrees         atomic.Int64
	early               early
}

var _ Source = (*Counter)(nil)

// Exact returns a Counter whose peak is exact to the byte, whatever the number of
// goroutines, as tests want it. It costs one atomic addition more for each operation,
// which all goroutines make to the same word: it does not scale with processors.
func Exact() *Counter {
	return &Counter{family: family{exact: true}}
}

// Allocate counts a successful allocation of a block of granted bytes, of which
// requested were asked for.
func (c *Counter) Allocate(requested, granted uintptr) {
	p := shard.Pin()
	if first := c.shards.Load(); first != nil && p.Index < shard.NumProcs && requested == granted {
		if s := slotAt(first, p.Index).Load(); s != nil && powerOfTwo(granted) {
			class := classOf(granted)
			n := p.Add(&s.ops[allocated].powers[class], 1)
			if n&int64(s.mask[class].Load()) == 0 {
				c.publish(p, s, int64(granted), n)
			}
			p.Unpin()
			c.checkEnded()
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
	if first := c.shards.Load(); first != nil && p.Index < shard.NumProcs {
		if s := slotAt(first, p.Index).Load(); s != nil && powerOfTwo(size) {
			class := classOf(size)
			n := p.Add(&s.ops[freed].powers[class], 1)
			if n&int64(s.mask[class].Load()) == 0 {
				c.publish(p, s, -int64(size), n)
			}
			p.Unpin()
			c.checkEnded()
			return
		}
	}
	c.count(p, freed, size, size).Unpin()
}

// FailAllocate counts an allocation that failed. No byte or block changes.
func (c *Counter) FailAllocate() { c.fail(&c.failedAllocations) }

// FailReallocate counts a reallocation that failed and left its block live.
func (c *Counter) FailReallocate() { c.fail(&c.failedReallocations) }

// FailFree counts a free that was refused.
func (c *Counter) FailFree() { c.fail(&c.failedFrees) }

func (c *Counter) fail(failures *atomic.Int64) {
	failures.Add(1)
	if c.ended.Load() {
		c.drain()
	}
}

// count counts a block of any size in p's shard. It returns the Proc that the caller has
// from then on.
func (c *Counter) count(p shard.Proc, o op, requested, granted uintptr) shard.Proc {
	if granted == 0 {
		return p
	}
	for {
		if s := c.shardCounts(p.Index); s != nil {
			c.countIn(p, s, o, requested, granted)
			break
		}
		n := c.countEarly(o, requested, granted)
		if n > 0 && n%busy != 0 {
			break
		}
		var grown bool
		if p, grown = c.grow(p); n > 0 {
			break
		}
		if !grown {
			c = c.parent // c has ended, and has no room
		}
	}
	if c.ended.Load() {
		p.Unpin()
		c.drain()
		p = shard.Pin()
	}
	return p
}
