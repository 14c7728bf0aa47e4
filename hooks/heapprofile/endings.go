package heapprofile

import (
	"math/bits"
	"sync/atomic"
	"time"

	"github.com/alloctrace/alloctrace/internal/goroutine"
	"github.com/alloctrace/alloctrace/internal/shard"
)

// Times are put into classes of a factor of two: up to 1 µs, up to 2 µs, and so on. The last one has all that is longer than
// 2^39 µs, which is six days.
const timeClasses = 41

func timeClass(d time.Duration) int {
	return min(bits.Len64(uint64(max(0, d-1))/1000), timeClasses-1)
}

// longest is the longest time of a class.
func longest(class int) time.Duration { return time.Microsecond << class }

// endings is how the blocks of a site ended, by how long they lived: estimates, as those of a site are.
type endings struct {
	blocks, bytes  [timeClasses]atomic.Int64
	variance       variance     // of the bytes
	elsewhere      atomic.Int64 // blocks that another goroutine freed
	otherProcessor atomic.Int64 // blocks that were freed on another processor
	by             [freeStacks]atomic.Pointer[freeStack]
}

// freeStacks is how many stacks a site keeps of those that have freed its blocks: the first.
const freeStacks = 4

// A freeStack is who freed blocks of a site.
type freeStack struct {
	stack  *stack
	blocks atomic.Int64
}

// An ending is what was added to the endings of a block's site.
type ending struct {
	class          uint8
	elsewhere      bool
	otherProcessor bool
	freedBy        *freeStack // nil if it is none of those kept
}

// end is called for a block that is released now.
func (p *Profile) end(b *block) ending {
	e := ending{
		class:     uint8(timeClass(time.Since(p.start) - b.since)),
		elsewhere: b.allocatedBy != goroutine32(), otherProcessor: b.allocatedOn != processor16(),
	}
	all := b.site.endings.Load()
	if all == nil {
		all = new(endings)
		if b.site.endings.CompareAndSwap(nil, all) {
			p.sites.ended.Add(1)
		} else {
			all = b.site.endings.Load()
		}
	}
	e.freedBy = all.freedBy(p.stacks.caller())
	all.add(b, e, 1)
	return e
}

// unend takes back that b has ended so, as end has said.
func (s *site) unend(b *block, e ending) {
	s.endings.Load().add(b, e, -1)
}

func (all *endings) add(b *block, e ending, times int64) {
	sums := b.sums()
	all.blocks[e.class].Add(times * sums.blocks)
	all.bytes[e.class].Add(times * sums.bytes)
	all.variance.add(float64(times) * sums.variance)
	if e.elsewhere {
		all.elsewhere.Add(times * sums.blocks)
	}
	if e.otherProcessor {
		all.otherProcessor.Add(times * sums.blocks)
	}
	if e.freedBy != nil {
		e.freedBy.blocks.Add(times * sums.blocks)
	}
}

// freedBy returns that of a stack, nil if others have all places.
func (all *endings) freedBy(of *stack) *freeStack {
	for i := range all.by {
		known := all.by[i].Load()
		if known == nil {
			added := &freeStack{stack: of}
			if all.by[i].CompareAndSwap(nil, added) {
				return added
			}
			known = all.by[i].Load()
		}
		if known.stack == of {
			return known
		}
	}
	return nil
}

// goroutine32 distinguishes goroutines that run at once by 32 bits: the addresses that their numbers are have a distance.
func goroutine32() uint32 { return uint32(goroutine.ID() >> 4) }

// processor16 distinguishes the processors that the Go runtime schedules goroutines on, by 16 bits. It is 0 where the runtime cannot be asked.
func processor16() uint16 {
	if !shard.Pinned {
		return 0
	}
	p := shard.Pin()
	p.Unpin()
	return uint16(p.Index + 1)
}
