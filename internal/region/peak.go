package region

import (
	"math/bits"
	rtrace "runtime/trace"

	"github.com/alloctrace/alloctrace/internal/shard"
)

// rereads is how often the releases are read again if there were some meanwhile.
const rereads = 16

// acquire takes room for n bytes, and returns what cell returns.
func (r *Region) acquire(p shard.Proc, n int64, child int) (shard.Proc, *cell) {
	p, c := r.cell(p, child)
	if n <= 0 || c.take(n) || !rtrace.IsEnabled() && r.raiseAlone(n) {
		return p, c
	}
	p.Unpin()
	r.raise(c, n)
	return r.cell(shard.Pin(), child)
}

// take takes n bytes of room, and reports whether there were as many.
func (c *cell) take(n int64) bool {
	for room := c.room.Load(); room >= n; room = c.room.Load() {
		if c.room.CompareAndSwap(room, room-n) {
			return true
		}
	}
	return false
}

// raiseAlone is raise as long as only one cell is there. It reports whether that was so.
func (r *Region) raiseAlone(n int64) bool {
	if r.hasMore().cells.Load() != nil {
		return false
	}
	for {
		room := r.first.room.Load()
		if rest := max(room-n, 0); r.first.room.CompareAndSwap(room, rest) {
			r.peak.Add(max(n-room, 0))
			return true
		}
	}
}

// raise takes n bytes of all room there is, and raises the peak by what is missing. What is left
// becomes the room of c.
func (r *Region) raise(c *cell, n int64) {
	m := r.withMore()
	m.mu.Lock()
	defer m.mu.Unlock()
	var room int64
	released := r.released()
	for range rereads {
		r.each(func(c *cell) { room += c.room.Swap(0) })
		before := released
		if released = r.released(); room >= n || released == before {
			break
		}
	}
	if room < n {
		now := r.peak.Add(n - room)
		if before := now - (n - room); rtrace.IsEnabled() && r.Observe != nil && bits.Len64(uint64(before)) < bits.Len64(uint64(now)) {
			r.Observe.Peaked(now)
		}
		room = n
	}
	c.room.Add(room - n)
}

// released is the number of operations that have been counted and give room.
func (r *Region) released() (n int64) {
	r.each(func(c *cell) { n += c.frees.Load() + c.reallocations.Load() })
	return n + r.hasMore().moved.Load()
}

func (r *Region) moveIn(size int64) {
	s := r.withMore()
	p, _ := r.acquire(shard.Pin(), size, -1)
	p.Unpin()
	s.movedIn.blocks.Add(1)
	s.movedIn.bytes.Add(size)
}

func (r *Region) moveOut(size int64) {
	s := r.withMore()
	s.moved.Add(1)
	s.movedOut.blocks.Add(1)
	s.movedOut.bytes.Add(size)
	p, c := r.cell(shard.Pin(), -1)
	c.room.Add(size)
	p.Unpin()
}
