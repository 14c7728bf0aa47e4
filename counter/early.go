package counter

import (
	"math/bits"
	"sync/atomic"
)

// busy is how many blocks of a size a Counter counts in its early counts before it gets a
// shard's.
const busy = 64

// early counts the first blocks, in few words: most children and regions see few sizes
// and are short-lived. All processors write it atomically. Each block is published to the
// peakTracker at once.
type early struct {
	has atomic.Uint32 // hasFailures and hasSlackFreed, once there are some

	// counts are count<<kindBits | kind, in the order in which kinds came. A word is 0
	// until it is needed, and keeps its kind from then on. The count has room for 2^21 blocks.
	// It stays below busy for each processor and one more, and the additions that are under way.
	counts [earlyKinds]atomic.Uint32
}

const (
	hasFailures = 1 << iota
	hasSlackFreed
)

// note sets a bit of has. So a snapshot of many Counters reads most of them no further.
func (e *early) note(bit uint32) {
	if e.has.Load()&bit == 0 {
		e.has.Or(bit)
	}
}

// earlySums are of blocks that are counted early.
type earlySums struct {
	otherBytes  [ops]atomic.Int64 // of blocks whose size is no power of two, without those with slack
	slackOthers atomic.Int64      // of those with slack
	requested   atomic.Int64      // see shardCounts
}

// A kind is what blocks have in common that one word counts: the operation, the class, and
// what their sizes are.
type kind uint64

const (
	earlyKinds = 39
	kindBits   = 11
	kindMask   = 1<<kindBits - 1

	power  = 1 // blocks of 1<<class bytes
	other  = 2 // blocks of other sizes
	slacks = 3 // blocks of 1<<class bytes, allocated with slack
)

func newKind(o op, class int, sizes kind) kind { return kind(o)<<8 | kind(class)<<2 | sizes }

func (k kind) op() op      { return op(k >> 8) }
func (k kind) class() int  { return int(k >> 2 % NumClasses) }
func (k kind) sizes() kind { return k & 3 }

// earlyOnly reports whether c has no counts but the early ones, and never had a child.
func (c *Counter) earlyOnly() bool { return !c.hasShards() && c.offspring == nil }

// word returns the word that counts blocks of kind k, nil if there is no room for another
// kind.
func (e *early) word(k kind) *atomic.Uint32 {
	for i := range e.counts {
		w := &e.counts[i]
		v := w.Load()
		if v == 0 && w.CompareAndSwap(0, uint32(k)) {
			return w
		}
		if v = w.Load(); kind(v&kindMask) == k {
			return w
		}
	}
	return nil
}

// countEarly counts a block in c's early counts, and returns how many of its kind there are
// by now; 0 if there is no room for it, and it is not counted.
func (c *Counter) countEarly(o op, requested, granted uintptr) int64 {
	slack := o == allocated && granted != requested
	k := newKind(o, bits.Len64(uint64(granted-1))%NumClasses, other)
	if powerOfTwo(granted) {
		k = newKind(o, classOf(granted), power)
		if slack {
			k = newKind(o, classOf(granted), slacks)
		}
	}
	w := c.early.word(k)
	if w == nil {
		return 0
	}
	if slack || o == reallocatedTo {
		c.earlySums.requested.Add(int64(requested)) // before the block: see snapshotOf
	}
	if o >= reallocatedFrom && granted != requested {
		c.earlySlackFreed.Add(int64(granted - requested))
		c.early.note(hasSlackFreed)
	}
	n := int64(w.Add(1<<kindBits) >> kindBits)
	if k.sizes() == other { // blocks before bytes: see addEarly
		sizes := &c.earlySums.otherBytes[o]
		if slack {
			sizes = &c.earlySums.slackOthers
		}
		sizes.Add(int64(granted))
	}
	c.move(o.direction() * int64(granted))
	return n
}
