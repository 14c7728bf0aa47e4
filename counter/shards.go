package counter

import (
	"math/bits"
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/shard"
)

// shardCounts are the counts of one shard, which nobody else writes between shard.Pin and
// Unpin; or those that all others share, which are written atomically. All are read
// atomically.
type shardCounts struct {
	// The peakTracker gets a block of 1<<i bytes when the new count has no bit in mask[i]:
	// each one as long as there are few.
	mask [NumClasses]atomic.Uint32

	owned bool // by a shard

	// A snapshot reads all acquisitions, in all counts, before all releases. A block that
	// it sees acquired and not released was live at the moment between the two passes, so
	// that the sum is never more than what was live then: for acquisitions are counted
	// before releases.
	ops          [ops]opCounts
	published    [unitClass]atomic.Int64 // bytes in blocks of 1<<i bytes, acquired less released, that the peakTracker has
	publishedOdd atomic.Int64            // in blocks of other sizes, likewise

	// Blocks that were allocated with slack are counted here, and not in ops. The
	// requested bytes are then a sum of words that only grow: see snapshotOf.
	slackPowers [unitClass + 1]atomic.Int64 // blocks of 1<<i bytes
	slackOthers atomic.Int64                // the bytes of all others; their number is in ops
	requested   atomic.Int64                // bytes requested of blocks with slack, and by all reallocations
	slackFreed  atomic.Int64                // bytes of all blocks that were released less what was requested of them

	_ [128]byte // keeps it off the cache lines that others write
}

// An op is a way by which blocks come or go.
type op int

const (
	allocated op = iota
	reallocatedTo
	reallocatedFrom
	freed
	ops
)

// direction is 1 for ops by which blocks come, -1 for others.
func (o op) direction() int64 {
	if o <= reallocatedTo {
		return 1
	}
	return -1
}

// opCounts are the blocks of one op. The bytes of blocks whose size is a power of two are
// known from their number.
type opCounts struct {
	powers     [NumClasses]atomic.Int64 // blocks of 1<<i bytes
	others     [NumClasses]atomic.Int64 // blocks of other sizes, by the power of two above
	otherBytes atomic.Int64             // the bytes of all the others
}

// net returns what was acquired less what was released, in ops and with slack.
func (s *shardCounts) net(word func(*opCounts) *atomic.Int64, slack *atomic.Int64) int64 {
	sum := slack.Load()
	for o := range ops {
		sum += o.direction() * word(&s.ops[o]).Load()
	}
	return sum
}

// add adds n to a word of s, which is p's or shared, and returns the sum.
func (s *shardCounts) add(p shard.Proc, word *atomic.Int64, n int64) int64 {
	if s.owned {
		return p.Add(word, n)
	}
	return word.Add(n)
}

// powerOfTwo reports whether size is one, which zero is not, by one comparison: bits
// that change with the one below size are more than those below it.
func powerOfTwo(size uintptr) bool { return size^(size-1) > size-1 }

// classOf returns the class of a size that is a power of two.
func classOf(size uintptr) int { return bits.TrailingZeros64(uint64(size)) % NumClasses }

// shardCounts returns those in which shard i counts, nil if there are none.
func (c *Counter) shardCounts(i int) *shardCounts {
	if i >= shard.NumProcs {
		return c.shared.Load()
	}
	if first := c.shards.Load(); first != nil {
		return slotAt(first, i).Load()
	}
	return nil
}

// setShards sets the pointers to the shards' counts.
func (c *Counter) setShards(list []atomic.Pointer[shardCounts]) {
	c.shards.Store(&list[0])
	c.procs.Store(int32(len(list))) // afterwards: operations read it first
}

// hasShards reports whether c has counts but the early ones.
func (c *Counter) hasShards() bool { return c.shards.Load() != nil || c.shared.Load() != nil }

// slotAt returns number i of the pointers that begin with first.
func slotAt(first *atomic.Pointer[shardCounts], i int) *atomic.Pointer[shardCounts] {
	return (*atomic.Pointer[shardCounts])(unsafe.Add(unsafe.Pointer(first), uintptr(i)*unsafe.Sizeof(*first)))
}

// countIn counts a block in s, which is p's or shared.
func (c *Counter) countIn(p shard.Proc, s *shardCounts, o op, requested, granted uintptr) {
	slack := o == allocated && granted != requested
	if slack || o == reallocatedTo {
		s.add(p, &s.requested, int64(requested)) // before the block: see snapshotOf
	}
	if o >= reallocatedFrom && granted != requested {
		s.add(p, &s.slackFreed, int64(granted-requested))
	}
	class := classOf(granted)
	if !powerOfTwo(granted) || slack && class >= len(s.slackPowers) {
		c.countOdd(p, s, o, granted, slack)
		return
	}
	blocks := &s.ops[o].powers[class]
	if slack {
		blocks = &s.slackPowers[class]
	}
	n := s.add(p, blocks, 1)
	if n&int64(s.mask[class].Load()) == 0 {
		c.publish(p, s, o.direction()*int64(granted), n)
	}
}

// publish gives the peakTracker block number n of a size that is a power of two, and those
// before it that it does not have. The bytes are negative if it was released.
func (c *Counter) publish(p shard.Proc, s *shardCounts, bytes, n int64) {
	if c.exact || bytes >= unit || bytes <= -unit {
		c.move(bytes)
		return
	}
	c.publishNet(p, s, bytes, n)
}

// publishNet is publish for blocks that are not published one by one once there are many.
// Those that came and went meanwhile are left out.
func (c *Counter) publishNet(p shard.Proc, s *shardCounts, bytes, n int64) {
	size := max(bytes, -bytes)
	class := bits.TrailingZeros64(uint64(size)) % unitClass
	if s.mask[class].Load() == 0 {
		s.add(p, &s.published[class], bytes)
		if n > busy {
			c.batched.Store(true)
			s.mask[class].Store(uint32(unit/max(size, small) - 1))
		}
	} else {
		net := s.net(func(o *opCounts) *atomic.Int64 { return &o.powers[class] }, &s.slackPowers[class]) << class
		if bytes = net - s.published[class].Swap(net); bytes == 0 {
			return
		}
	}
	c.move(bytes)
}

// countOdd counts a block whose size is no power of two, or too large a one for
// slackPowers. See total.add for the order.
func (c *Counter) countOdd(p shard.Proc, s *shardCounts, o op, size uintptr, slack bool) {
	counts := &s.ops[o]
	n := s.add(p, &counts.others[bits.Len64(uint64(size-1))%NumClasses], 1)
	sizes := &counts.otherBytes
	if slack {
		sizes = &s.slackOthers
	}
	s.add(p, sizes, int64(size))
	bytes := o.direction() * int64(size)
	switch {
	case c.exact:
	case n <= busy || size >= unit:
		s.add(p, &s.publishedOdd, bytes)
	default:
		if !c.batched.Load() {
			c.batched.Store(true)
		}
		net := s.net(func(o *opCounts) *atomic.Int64 { return &o.otherBytes }, &s.slackOthers)
		published := s.publishedOdd.Load()
		if bytes = net - published; bytes > -unit && bytes < unit || !s.publishedOdd.CompareAndSwap(published, net) {
			return
		}
	}
	c.move(bytes)
}

// grow gives p's shard counts of its own, or those that are shared if it may have none, and
// reports whether it did: not if c has ended. It unpins p for that, and returns the Proc that
// the caller has from then on.
func (c *Counter) grow(p shard.Proc) (shard.Proc, bool) {
	i := p.Index
	p.Unpin()
	c.growing.Lock()
	ended := c.ended.Load()
	if !ended {
		slot := &c.shared
		if i < shard.NumProcs {
			if c.shards.Load() == nil {
				c.setShards(make([]atomic.Pointer[shardCounts], shard.NumProcs))
			}
			slot = slotAt(c.shards.Load(), i)
		}
		if slot.Load() == nil {
			slot.Store(&shardCounts{owned: i < shard.NumProcs})
			c.top().grown.Add(1)
		}
	}
	c.growing.Unlock()
	return shard.Pin(), !ended
}

// each calls f with the counts of c's shards, and those that are shared.
func (c *Counter) each(f func(*shardCounts)) {
	if s := c.shared.Load(); s != nil {
		f(s)
	}
	first := c.shards.Load()
	if first == nil {
		return
	}
	for i := range shard.NumProcs {
		if s := slotAt(first, i).Load(); s != nil {
			f(s)
		}
	}
}
