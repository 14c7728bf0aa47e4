package region

import (
	"sync/atomic"

	"github.com/alloctrace/alloctrace/internal/shard"
)

// A cell has the counts of one processor, which nobody else writes between shard.Pin and Unpin,
// but for room; or those of all processors that may have none, which are written atomically.
//
// The room of all cells and what is live in the region add up to its peak. So an allocation
// for which its processor has room makes no peak, and nobody else needs to know of it.
//
// Memory ordering: an acquisition takes its room before it is counted, and a release is counted
// before it gives its room. So whoever counts acquisitions first, then releases, and then
// looks at the peak, finds no more live than was, and no more than the peak. And whoever has
// taken the room of all, and sees that nothing was released meanwhile, knows that there was no
// more at that moment.
type cell struct {
	room                      atomic.Int64 // bytes, at least 0
	allocations, in, slack    atomic.Int64 // in is the bytes that came, by reallocations too; slack is what was not requested of them
	reallocations, frees, out atomic.Int64
	shares                    atomic.Pointer[[maxChildren]share] // nil until a child counts
}

// A paddedCell is kept off the cache lines that others write.
type paddedCell struct {
	cell
	_ [64]byte
}

// several is the owner when no processor counts in first any more.
const several = -1

// cellAt returns the cell of p, nil if it has none yet.
func (r *Region) cellAt(p shard.Proc) *cell {
	if r.owner.Load() == int32(p.Index)+1 {
		return &r.first
	}
	return r.otherCell(p)
}

func (r *Region) otherCell(p shard.Proc) *cell {
	if p.Index < shard.NumProcs && r.owner.Load() == 0 && r.owner.CompareAndSwap(0, int32(p.Index)+1) {
		return &r.first
	}
	if list := r.hasMore().cells.Load(); list != nil {
		if c := (*list)[min(p.Index, shard.NumProcs)].Load(); c != nil {
			return &c.cell
		}
	}
	return nil
}

// atHand returns p's cell, and the share of a child in it if by is not nil, where that takes but
// some loads; else nil.
func (r *Region) atHand(p shard.Proc, by *string) (*cell, *share) {
	if p.Index >= shard.NumProcs {
		return nil, nil
	}
	c := r.cellAt(p)
	if c == nil || by == nil {
		return c, nil
	}
	if shares := c.shares.Load(); shares != nil {
		names := &r.more.Load().children
		for i := range names {
			if names[i].Load() == by {
				return c, &shares[i]
			}
		}
	}
	return nil, nil
}

// cell returns the cell of the caller's processor, which has shares if it counts for a child. For
// that it may unpin p, and it returns the Proc that the caller has from then on.
func (r *Region) cell(p shard.Proc, child int) (shard.Proc, *cell) {
	for {
		if c := r.cellAt(p); c != nil && (child < 0 || c.shares.Load() != nil) {
			return p, c
		}
		p.Unpin()
		r.grow(p.Index, child)
		p = shard.Pin()
	}
}

// grow makes what cell misses for a processor.
func (r *Region) grow(index, child int) {
	c := &r.first
	if r.owner.Load() != int32(index)+1 {
		cells := &r.withMore().cells
		if cells.Load() == nil {
			list := make([]atomic.Pointer[paddedCell], shard.NumProcs+1)
			cells.CompareAndSwap(nil, &list)
			r.owner.Store(several) // first is in a cache line with what others read
		}
		slot := &(*cells.Load())[min(index, shard.NumProcs)]
		slot.CompareAndSwap(nil, new(paddedCell))
		c = &slot.Load().cell
	}
	if child >= 0 {
		c.shares.CompareAndSwap(nil, new([maxChildren]share))
	}
}

// each calls f with all cells.
func (r *Region) each(f func(*cell)) {
	f(&r.first)
	if list := r.hasMore().cells.Load(); list != nil {
		for i := range *list {
			if c := (*list)[i].Load(); c != nil {
				f(&c.cell)
			}
		}
	}
}

// add adds n to a word of p's cell.
func add(p shard.Proc, word *atomic.Int64, n int64) {
	if p.Index < shard.NumProcs {
		p.Add(word, n)
	} else {
		word.Add(n)
	}
}

// The following return the Proc that the caller has from then on.

func (r *Region) allocate(p shard.Proc, requested, granted int64, by *string) shard.Proc {
	child := r.child(by)
	p, c := r.acquire(p, granted, child)
	if requested != granted {
		add(p, &c.slack, granted-requested)
	}
	add(p, &c.allocations, 1)
	add(p, &c.in, granted)
	if child >= 0 {
		add(p, &c.shares.Load()[child].in, granted)
	}
	return p
}

func (r *Region) reallocate(p shard.Proc, old, requested, granted int64, by *string) shard.Proc {
	child := r.child(by)
	p, c := r.acquire(p, granted-old, child)
	if granted == 0 {
		r.withMore().dissolved.Add(1)
	} else {
		add(p, &c.slack, granted-requested)
	}
	add(p, &c.reallocations, 1)
	add(p, &c.out, old)
	add(p, &c.in, granted)
	if child >= 0 {
		add(p, &c.shares.Load()[child].out, old)
		add(p, &c.shares.Load()[child].in, granted)
	}
	if granted < old {
		c.room.Add(old - granted)
	}
	return p
}

func (r *Region) free(p shard.Proc, size int64, by *string) shard.Proc {
	child := r.child(by)
	p, c := r.cell(p, child)
	add(p, &c.frees, 1)
	add(p, &c.out, size)
	if child >= 0 {
		add(p, &c.shares.Load()[child].out, size)
	}
	c.room.Add(size)
	return p
}
