package counter

import (
	"math/bits"
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/shard"
)

// A tally is what has been counted in one place. There is one for each shard that
// counts much, which nobody else writes between shard.Enter and shard.Leave, and a
// Counter's home for all others, which is written atomically. All are read
// atomically.
type tally struct {
	own bool // of a shard, and not a home

	// The level is told of a block of 1<<i bytes when the new count has no bit in
	// mask[i]: of every one as long as there are few.
	mask [NumClasses]atomic.Uint32

	// A snapshot reads all that was acquired, in all tallies, before all that was
	// released. A block that it sees acquired and not released was live at the moment
	// between the two passes, so that the sum is never more than what was live
	// then: for a block is counted as acquired before it can be released, and who
	// sees it released sees it acquired.
	flows   [ways]flow
	told    [unitClass]atomic.Int64 // bytes in blocks of 1<<i bytes, acquired less released, that the level knows of
	toldOdd atomic.Int64            // in blocks of other sizes, likewise

	// Blocks that were allocated with slack are counted here, and not in flows. The
	// requested bytes are then a sum of words that only grow: see view.snapshotOf.
	slackPowers [unitClass + 1]atomic.Int64 // blocks of 1<<i bytes
	slackOthers atomic.Int64                // the bytes of all others; their number is in flows
	requested   atomic.Int64                // bytes requested of blocks with slack, and by all reallocations
}

// An ownTally is the tally of a shard, off the cache lines that others write.
type ownTally struct {
	tally
	_ [128]byte
}

// A way is one by which blocks come or go.
type way int

const (
	allocated way = iota
	reallocatedTo
	reallocatedFrom
	freed
	ways
)

// direction is 1 for ways by which blocks come, -1 for others.
func (w way) direction() int64 {
	if w <= reallocatedTo {
		return 1
	}
	return -1
}

// A flow counts the blocks that went one way. The bytes of blocks whose size is a
// power of two are known from their number.
type flow struct {
	powers    [NumClasses]atomic.Int64 // blocks of 1<<i bytes
	others    [NumClasses]atomic.Int64 // blocks of other sizes, by the power of two above
	otherSize atomic.Int64             // the bytes of all the others
}

// net returns what came less what went, in the flows and with slack.
func (t *tally) net(word func(*flow) *atomic.Int64, slack *atomic.Int64) int64 {
	sum := slack.Load()
	for w := range ways {
		sum += w.direction() * word(&t.flows[w]).Load()
	}
	return sum
}

// add adds n to a word of t, which is p's or home, and returns the sum.
func (t *tally) add(p shard.Proc, word *atomic.Int64, n int64) int64 {
	if t.own {
		return p.Add(word, n)
	}
	return word.Add(n)
}

// powerOfTwo reports whether size is one, which zero is not, by one comparison: bits
// that change with the one below size are more than those below it.
func powerOfTwo(size uintptr) bool { return size^(size-1) > size-1 }

// classOf returns the class of a size that is a power of two.
func classOf(size uintptr) int { return bits.TrailingZeros64(uint64(size)) % NumClasses }

// tally returns that of shard i, nil if it has none.
func (c *Counter) tally(i int) *tally {
	if first := c.tallies.Load(); first != nil && i < shard.Own {
		return nth(first, i).Load()
	}
	return nil
}

// nth returns number i of those that begin with first.
func nth(first *atomic.Pointer[tally], i int) *atomic.Pointer[tally] {
	return (*atomic.Pointer[tally])(unsafe.Add(unsafe.Pointer(first), uintptr(i)*unsafe.Sizeof(*first)))
}

// count counts a block in p's shard, whatever its size. It returns the Proc that the
// caller has from then on.
func (c *Counter) count(p shard.Proc, w way, requested, granted uintptr) shard.Proc {
	if granted == 0 {
		return p
	}
	t := c.tally(p.Index)
	if t == nil {
		t = &c.home
	}
	if n := c.countIn(p, t, w, requested, granted); !t.own && n%early == 0 {
		return c.grow(p)
	}
	return p
}

// countIn counts a block in t, which is p's or home, and returns how many of its class
// there are by now.
func (c *Counter) countIn(p shard.Proc, t *tally, w way, requested, granted uintptr) (n int64) {
	slack := w == allocated && granted != requested
	if slack || w == reallocatedTo {
		t.add(p, &t.requested, int64(requested)) // before the block: see view.snapshotOf
	}
	class := classOf(granted)
	if !powerOfTwo(granted) || slack && class >= len(t.slackPowers) {
		return c.countOdd(p, t, w, granted, slack)
	}
	blocks := &t.flows[w].powers[class]
	if slack {
		blocks = &t.slackPowers[class]
	}
	n = t.add(p, blocks, 1)
	if n&int64(t.mask[class].Load()) == 0 {
		c.tell(p, t, w.direction()*int64(granted), n)
	}
	return n
}

// tell tells the level of block number n of a size that is a power of two, and of
// those before it that it does not know of. The bytes are negative if it goes.
func (c *Counter) tell(p shard.Proc, t *tally, bytes, n int64) {
	if c.exact || bytes >= unit || bytes <= -unit {
		c.move(bytes)
		return
	}
	c.tellNet(p, t, bytes, n)
}

// tellNet is tell for blocks of which the level is not told one by one once there are
// many. It need not know of those that came and went meanwhile.
func (c *Counter) tellNet(p shard.Proc, t *tally, bytes, n int64) {
	size := max(bytes, -bytes)
	class := bits.TrailingZeros64(uint64(size)) % unitClass
	if t.mask[class].Load() == 0 {
		t.add(p, &t.told[class], bytes)
		if n > early {
			c.vague.Store(true)
			t.mask[class].Store(uint32(unit/max(size, small) - 1))
		}
	} else {
		net := t.net(func(f *flow) *atomic.Int64 { return &f.powers[class] }, &t.slackPowers[class]) << class
		if bytes = net - t.told[class].Swap(net); bytes == 0 {
			return
		}
	}
	c.move(bytes)
}

// countOdd counts a block whose size is no power of two, or too large a one for
// slackPowers, and returns how many of its class there are by now. See total.add for the
// order.
func (c *Counter) countOdd(p shard.Proc, t *tally, w way, size uintptr, slack bool) int64 {
	f := &t.flows[w]
	n := t.add(p, &f.others[bits.Len64(uint64(size-1))%NumClasses], 1)
	sizes := &f.otherSize
	if slack {
		sizes = &t.slackOthers
	}
	t.add(p, sizes, int64(size))
	bytes := w.direction() * int64(size)
	switch {
	case c.exact:
	case n <= early || size >= unit:
		t.add(p, &t.toldOdd, bytes)
	default:
		if !c.vague.Load() {
			c.vague.Store(true)
		}
		net := t.net(func(f *flow) *atomic.Int64 { return &f.otherSize }, &t.slackOthers)
		told := t.toldOdd.Load()
		if bytes = net - told; bytes > -unit && bytes < unit || !t.toldOdd.CompareAndSwap(told, net) {
			return n
		}
	}
	c.move(bytes)
	return n
}

// grow gives p's shard a tally of its own, if it may have one. It unpins p for that, and
// returns the Proc that the caller has from then on.
func (c *Counter) grow(p shard.Proc) shard.Proc {
	i := p.Index
	if i >= shard.Own {
		return p
	}
	p.Unpin()
	if c.tallies.Load() == nil {
		c.tallies.CompareAndSwap(nil, &make([]atomic.Pointer[tally], shard.Own)[0])
	}
	nth(c.tallies.Load(), i).CompareAndSwap(nil, &(&ownTally{tally: tally{own: true}}).tally)
	return shard.Pin()
}

// all appends c's tallies to list.
func (c *Counter) all(list []*tally) []*tally {
	list = append(list, &c.home)
	for i := range shard.Own {
		if t := c.tally(i); t != nil {
			list = append(list, t)
		}
	}
	return list
}
