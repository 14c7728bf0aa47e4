package counter

import (
	"sync/atomic"

	"github.com/alloctrace/alloctrace/internal/shard"
)

// A level follows what is live, and keeps the peak. Tallies tell it what they have
// counted, in units, so that goroutines seldom meet here: what it knows is less than
// the truth by what was acquired and not told, and more by what was released and not
// told.
type level struct {
	live   atomic.Int64 // bytes
	top    atomic.Int64 // the most that live was
	peak   atomic.Int64 // the same, but for what is known not to have been live then
	lowest atomic.Int64 // the least, below zero if blocks of another Counter were freed here
	vague  atomic.Bool  // tallies have counted what they have not told
}

// The level is told of each of the early blocks of a class in a tally, and then when
// blocks of a unit of bytes in all have come or gone, or 128 that are small, or one
// that is larger.
const (
	early     = 64
	unitClass = 19
	unit      = 1 << unitClass
	small     = unit / 128
)

// move tells the level of bytes that came, or went if they are negative.
func (c *Counter) move(bytes int64) {
	if live := c.live.Add(bytes); live > c.top.Load() || live < 0 {
		c.reach(live)
	}
}

// reach is called when live may be the highest or lowest so far. The level may have
// been told on one processor what came, and not yet on another what went before: of
// a peak as much is believed as the tallies have too, or is sure without them.
//
//go:noinline
func (c *Counter) reach(live int64) {
	raise(&c.top, live)
	for lowest := c.lowest.Load(); live < lowest && !c.lowest.CompareAndSwap(lowest, live); lowest = c.lowest.Load() {
	}
	if live > c.peak.Load() && c.vague.Load() && !c.exact {
		net, untold := c.net()
		live = min(live, max(net, live-untold))
	}
	raise(&c.peak, live)
}

// raise makes w at least v.
func raise(w *atomic.Int64, v int64) {
	for old := w.Load(); v > old && !w.CompareAndSwap(old, v); old = w.Load() {
	}
}

// net returns what the tallies have as live, which is no more than was live at some
// moment during the call, for they are read as a snapshot reads them; and how much
// was released at most that the level has not been told of.
func (c *Counter) net() (live, untold int64) {
	for w := range ways { // first those by which blocks come
		var sum total
		sum.add(&c.home, w)
		for i := range shard.Own {
			if t := c.tally(i); t != nil {
				sum.add(t, w)
			}
		}
		live += w.direction() * sum.bytes
		if w.direction() < 0 {
			untold += sum.untold
		}
	}
	return live, untold
}
