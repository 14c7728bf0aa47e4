// Package counter counts what goes through an allocator: operations, bytes and
// blocks, live and in all. A [Counter] counts. [Stats] is a snapshot of it. A [Source] is
// whatever returns one.
package counter

import (
	"sync/atomic"

	"github.com/alloctrace/alloctrace/internal/shard"
)

// A Source returns the numbers of an allocator. It is all that exporters and tests
// need to know of one.
type Source interface {
	Stats() Stats
}

// A Counter counts operations on blocks. The zero Counter is ready; [Exact] makes
// one whose peak is exact. It may be used by several goroutines at once and must
// not be copied.
//
// Call the methods after the operation that they count: Allocate before the block is handed
// on, so that nobody can free a block that is not yet counted; Free once the memory was given
// back. Then the live figure never falls below zero. It is ahead of the truth by the frees
// that are under way, at most. Sizes are in bytes. Blocks of size zero are not counted.
//
// # Cost
//
// A Counter takes 384 bytes as long as it counts few blocks. Each costs two or three atomic
// additions. After 64 blocks of a size, or blocks of more than 39 kinds, each processor that
// counts gets 4.75 KiB of its own. There a block whose size is a power of two less than 512 KiB
// costs no atomic operation: one is added to a count. Other sizes cost a second addition, and
// so does slack, each time. The peak costs an atomic addition and two loads more: for blocks of 512 KiB
// and more, for the first 64 of a size, and for one in 128 of the others.
//
// Where a goroutine cannot be kept on its processor, shards are chosen by the address of its
// stack, and additions are atomic: under the race detector, and with the build tag
// alloctrace_nolinkname.
type Counter struct {
	// The first cache line is what operations read, with the first of the early counts. A snapshot
	// of many Counters reads it of most of them, and the last line. Both are not written any more
	// when many blocks are counted, but for a new peak.
	shards    atomic.Pointer[atomic.Pointer[shardCounts]] // the first of shard.NumProcs, see slotAt; nil until one is needed
	shared    atomic.Pointer[shardCounts]                 // for processors that have none; nil until it is needed
	procs     atomic.Int32                                // how many processors may have a shard; 0 as long as shards is nil
	ended     atomic.Bool                                 // after Fold: who counts here drains it then
	offspring *offspring                                  // nil if it never had a child; the root's mu guards it

	early early
	peakTracker
	failedAllocations   atomic.Int64
	failedReallocations atomic.Int64
	failedFrees         atomic.Int64
	family
	earlySlackFreed atomic.Int64 // see shardCounts
	_               [16]byte
	earlySums
	extremes
}

var _ Source = (*Counter)(nil)

// Exact returns a Counter whose peak is exact to the byte, for tests. Each operation costs an
// atomic addition more, to a word that all goroutines share, so that it does not scale with
// processors.
func Exact() *Counter {
	return &Counter{peakTracker: peakTracker{exact: true}}
}

// Allocate counts a successful allocation of a block of granted bytes, of which
// requested were asked for.
func (c *Counter) Allocate(requested, granted uintptr) {
	p := shard.Pin()
	if p.Index < int(c.procs.Load()) && requested == granted {
		if s := slotAt(c.shards.Load(), p.Index).Load(); s != nil && powerOfTwo(granted) {
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

// Reallocate counts a successful reallocation of a block of old bytes, of which oldRequested were asked for, into one
// of granted bytes, of which requested were asked for. Zero granted bytes means
// that the block was freed by it.
func (c *Counter) Reallocate(oldRequested, old, requested, granted uintptr) {
	p := c.count(shard.Pin(), reallocatedFrom, oldRequested, old)
	c.count(p, reallocatedTo, requested, granted).Unpin()
}

// Free counts a successful free of a block of granted bytes, of which requested were asked for when it was allocated or
// reallocated.
func (c *Counter) Free(requested, granted uintptr) {
	p := shard.Pin()
	if p.Index < int(c.procs.Load()) {
		if s := slotAt(c.shards.Load(), p.Index).Load(); s != nil && powerOfTwo(granted) {
			class := classOf(granted)
			n := p.Add(&s.ops[freed].powers[class], 1)
			if requested != granted {
				p.Add(&s.slackFreed, int64(granted-requested))
			}
			if n&int64(s.mask[class].Load()) == 0 {
				c.publish(p, s, -int64(granted), n)
			}
			p.Unpin()
			c.checkEnded()
			return
		}
	}
	c.count(p, freed, requested, granted).Unpin()
}

// FailAllocate counts an allocation that failed. No byte or block changes.
func (c *Counter) FailAllocate() { c.fail(&c.failedAllocations) }

// FailReallocate counts a reallocation that failed and left its block live.
func (c *Counter) FailReallocate() { c.fail(&c.failedReallocations) }

// FailFree counts a free that was refused.
func (c *Counter) FailFree() { c.fail(&c.failedFrees) }

func (c *Counter) fail(failures *atomic.Int64) {
	failures.Add(1)
	c.early.note(hasFailures)
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
