package counter

import (
	"math/bits"
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/shard"
)

// A Tally is what a goroutine, or a few, have counted in a [Counter]. Its methods are
// the first half of the Counter's, small enough to be compiled into their callers,
// where they cost an atomic addition and no call:
//
//	t := c.Tally()
//	if r := t.Free(size); r != counter.NoRest {
//		c.RestOfFree(t, r, size)
//	}
//
// It is what [Counter.Free] does. A Tally is to be used at once and not kept.
type Tally struct {
	// A snapshot reads all that was acquired, in all Tallies, before all that was
	// released. A block that it sees acquired and not released was live at the moment
	// between the two passes, so that the sum is never more than what was live
	// then: for a block is counted as acquired before it can be released, and all of
	// these are atomic operations, which are sequentially consistent.
	allocated, reallocatedTo flow
	reallocatedFrom, freed   flow
	told                     [NumClasses]atomic.Int64 // blocks of 1<<i bytes, acquired less released, that the level knows of
	toldOdd                  atomic.Int64             // bytes of blocks of other sizes, likewise
	more                     int64                    // so many blocks beyond early are told one by one: all, if the peak is to be exact
	slack                    atomic.Int64             // bytes granted beyond those requested
	meeting                  shard.Meeting
	_                        [64]byte
}

// A Rest is what is left to do after the first half of counting a block.
type Rest int64

const (
	NoRest Rest = -1 // nothing
	odd    Rest = 0  // all: the size is no power of two
	// others: how many blocks there are, of which the level is to be told
)

// Allocate is the first half of [Counter.Allocate]. The second,
// [Counter.RestOfAllocate], must follow if it returns anything but NoRest, and if
// more was granted than requested.
func (t *Tally) Allocate(granted uintptr) Rest { return t.add(&t.allocated, granted) }

// Free is the first half of [Counter.Free]. The second, [Counter.RestOfFree], must
// follow if it returns anything but NoRest.
func (t *Tally) Free(size uintptr) Rest { return t.add(&t.freed, size) }

// RestOfAllocate is the second half of [Counter.Allocate].
func (c *Counter) RestOfAllocate(t *Tally, r Rest, requested, granted uintptr) {
	c.rest(t, &t.allocated, acquired, r, requested, granted)
}

// RestOfFree is the second half of [Counter.Free].
func (c *Counter) RestOfFree(t *Tally, r Rest, size uintptr) {
	c.rest(t, &t.freed, released, r, size, size)
}

// A flow counts blocks that went one way for one reason. The bytes of blocks
// whose size is a power of two are known from their number.
type flow struct {
	powers    [NumClasses]atomic.Int64 // blocks of 1<<i bytes
	others    [NumClasses]atomic.Int64 // blocks of other sizes, by the power of two above
	otherSize atomic.Int64             // the bytes of all the others
}

// add counts a block if its size is a power of two, and returns what is left to do.
func (t *Tally) add(f *flow, size uintptr) Rest {
	if size&(size-1) != 0 || size == 0 {
		return odd
	}
	n := f.powers[bits.TrailingZeros64(uint64(size))%NumClasses].Add(1)
	if uint64(n)*uint64(max(size, small))%unit == 0 || n-early <= t.more {
		return Rest(n)
	}
	return NoRest
}

// addOdd counts a block whose size is no power of two, and returns how many of its
// class there are by now. See total.add for the order.
func (f *flow) addOdd(size uintptr) int64 {
	n := f.others[bits.Len64(uint64(size))%NumClasses].Add(1)
	f.otherSize.Add(int64(size))
	return n
}

// untold returns the bytes in blocks of 1<<class bytes that the level is to be told
// of. Blocks that were acquired and released again meanwhile it need not know of.
func (t *Tally) untold(class int) int64 {
	net := t.allocated.powers[class].Load() + t.reallocatedTo.powers[class].Load() -
		t.reallocatedFrom.powers[class].Load() - t.freed.powers[class].Load()
	return (net - t.told[class].Swap(net)) << class
}

// untoldOdd is untold for the blocks of other sizes, once their bytes are a unit.
func (t *Tally) untoldOdd() int64 {
	net := t.allocated.otherSize.Load() + t.reallocatedTo.otherSize.Load() -
		t.reallocatedFrom.otherSize.Load() - t.freed.otherSize.Load()
	told := t.toldOdd.Load()
	if bytes := net - told; (bytes >= unit || bytes <= -unit) && t.toldOdd.CompareAndSwap(told, net) {
		return bytes
	}
	return 0
}

// rest does what is left of counting a block of granted bytes. What is needed after a
// call goes through memory, and a processor takes its time to finish with that
// before an atomic addition: so the calls come last.
func (c *Counter) rest(t *Tally, f *flow, d direction, r Rest, requested, granted uintptr) {
	if r <= odd || granted != requested {
		c.restOdd(t, f, d, r, requested, granted)
		return
	}
	bytes := int64(d) * int64(granted)
	if t.more == 0 && granted < unit {
		if class := bits.TrailingZeros64(uint64(granted)) % NumClasses; r <= early {
			t.told[class].Add(int64(d))
		} else if bytes = t.untold(class); bytes == 0 {
			c.meet(t)
			return
		}
	}
	live := c.live.Add(bytes)
	if live > c.peak.Load() || live < 0 || r%16 == 0 {
		c.met(t, live)
	}
}

// restOdd is rest for what is not as common.
func (c *Counter) restOdd(t *Tally, f *flow, d direction, r Rest, requested, granted uintptr) {
	switch {
	case r > odd:
		c.rest(t, f, d, r, granted, granted)
	case r == odd && granted != 0:
		bytes := int64(d) * int64(granted)
		n := f.addOdd(granted)
		if t.more == 0 {
			if n <= early || granted >= unit {
				t.toldOdd.Add(bytes)
			} else {
				bytes = t.untoldOdd()
			}
		}
		if bytes != 0 {
			c.met(t, c.live.Add(bytes))
		}
	}
	if granted != requested {
		t.slack.Add(int64(granted - requested)) // after the block: see view.snapshot
	}
}

// met is called now and then after the level was told.
func (c *Counter) met(t *Tally, live int64) {
	c.reach(live)
	c.meet(t)
}

// Tally returns where the caller counts: the Counter's only Tally, or once it has
// spread one of several, by the address of the caller's stack.
func (c *Counter) Tally() *Tally {
	if first := c.spread.Load(); first != nil {
		_, i := shard.All.Pick()
		return (*Tally)(unsafe.Add(unsafe.Pointer(first), uintptr(i)*unsafe.Sizeof(Tally{})))
	}
	return &c.home
}

// meet is called now and then by who counts in t. Goroutines that take turns all the
// time make room for each other: the Counter spreads over more Tallies, and within
// these one moves on to another.
func (c *Counter) meet(t *Tally) {
	slot, _ := shard.All.Pick()
	c.meetAs(t, slot)
}

func (c *Counter) meetAs(t *Tally, slot uint32) {
	if !t.meeting.Crowded(slot) {
		return
	}
	if c.spread.Load() == nil {
		tallies := make([]Tally, shard.Count)
		for i := range tallies {
			tallies[i].more = c.home.more
		}
		c.spread.CompareAndSwap(nil, &tallies[0])
		return
	}
	shard.All.Collided(slot)
}

// tallies appends those of c to list.
func (c *Counter) tallies(list []*Tally) []*Tally {
	list = append(list, &c.home)
	if first := c.spread.Load(); first != nil {
		for i := range unsafe.Slice(first, shard.Count) {
			list = append(list, (*Tally)(unsafe.Add(unsafe.Pointer(first), uintptr(i)*unsafe.Sizeof(Tally{}))))
		}
	}
	return list
}
