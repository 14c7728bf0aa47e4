package counter

import "sync/atomic"

// A level follows what is live, and keeps the peak. Tallies tell it what they have
// counted, in units, so that goroutines seldom meet here: what it knows is less than
// the truth by what was acquired and not told, and more by what was released and not
// told.
type level struct {
	live   atomic.Int64 // bytes
	peak   atomic.Int64 // the most that live was
	lowest atomic.Int64 // the least, below zero if blocks of another Counter were freed here
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

// move tells l of bytes that came, or went if they are negative.
func (l *level) move(bytes int64) {
	if live := l.live.Add(bytes); live > l.peak.Load() || live < 0 {
		l.reach(live)
	}
}

// reach makes live the peak if it is more, or the lowest if it is less.
//
//go:noinline
func (l *level) reach(live int64) {
	for peak := l.peak.Load(); live > peak && !l.peak.CompareAndSwap(peak, live); peak = l.peak.Load() {
	}
	for lowest := l.lowest.Load(); live < lowest && !l.lowest.CompareAndSwap(lowest, live); lowest = l.lowest.Load() {
	}
}
