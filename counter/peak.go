package counter

import "sync/atomic"

// A peakTracker follows what is live, and keeps the peak. Shards publish to it what they
// have counted, in units, so that goroutines seldom meet here: what it has is less than the
// truth by what was acquired and not published, and more by what was released and not
// published.
type peakTracker struct {
	live    atomic.Int64 // bytes
	highest atomic.Int64 // the most that live was
	exact   bool
	batched atomic.Bool // shards have counted what they have not published
}

// extremes are what a snapshot reads of it.
type extremes struct {
	peak   atomic.Int64 // the most that live was, but for what is known not to have been live then
	lowest atomic.Int64 // the least, below zero if blocks of another Counter were freed here
}

// A shard publishes each of its first blocks of a class, and then when blocks of a unit of
// bytes in all have come or gone, or 128 that are small, or one that is larger.
const (
	unitClass = 19
	unit      = 1 << unitClass
	small     = unit / 128
)

// move publishes bytes that came, or went if they are negative.
func (c *Counter) move(bytes int64) {
	if live := c.live.Add(bytes); live > c.highest.Load() || live < 0 {
		c.updateExtremes(live)
	}
}

// updateExtremes is called when live may be the highest or lowest so far. What came may have
// been published by one processor before another has published what went earlier: the peak is
// capped by a second read of the shards.
//
//go:noinline
func (c *Counter) updateExtremes(live int64) {
	raise(&c.highest, live)
	for lowest := c.lowest.Load(); live < lowest && !c.lowest.CompareAndSwap(lowest, live); lowest = c.lowest.Load() {
	}
	if live > c.peak.Load() && c.batched.Load() && !c.exact {
		net, unpublished := c.net()
		live = min(live, max(net, live-unpublished))
	}
	raise(&c.peak, live)
}

// raise makes w at least v.
func raise(w *atomic.Int64, v int64) {
	for old := w.Load(); v > old && !w.CompareAndSwap(old, v); old = w.Load() {
	}
}

// net returns what the counts have as live, which is no more than was live at some moment
// during the call, for they are read as a snapshot reads them; and how much was released at
// most that was not published.
func (c *Counter) net() (live, unpublished int64) {
	var sums [ops]total
	addEarly(&sums, c, allocated)
	for o := range ops { // first those by which blocks come
		if o == reallocatedFrom {
			addEarly(&sums, c, reallocatedFrom)
		}
		c.each(func(s *shardCounts) {
			sums[o].add(s, o)
			if o.direction() < 0 {
				unpublished += s.unpublished(o)
			}
		})
		live += o.direction() * sums[o].bytes()
	}
	return live, unpublished
}

// unpublished returns how many bytes of an op's blocks the peakTracker does not have, at most.
func (s *shardCounts) unpublished(o op) (bytes int64) {
	var most int64
	for i := range s.ops[o].powers {
		blocks := s.ops[o].powers[i].Load()
		if o == allocated && i < len(s.slackPowers) {
			bytes += min(s.slackPowers[i].Load(), int64(s.mask[i].Load())) << i
		}
		bytes += min(blocks, int64(s.mask[i].Load())) << i
		if int64(1)<<i <= unit {
			most = max(most, s.ops[o].others[i].Load())
		}
	}
	if most > busy {
		bytes += unit
	}
	return bytes
}

// bounds are what is known of the peak of a Counter and its descendants.
type bounds struct {
	// The peak was at most this and what was not published.
	peak, unpublished int64
	// It was at least the highest peak of a Counter, less what others were below zero,
	// because blocks were freed there that were allocated elsewhere.
	highest, below int64
	nodes          int // how many Counters were looked at
}

// bounds returns what is known of the peak of c and its descendants.
func (c *Counter) bounds() bounds {
	var b bounds
	b.addOwn(c)
	for _, child := range c.kin().children {
		b.add(child.bounds())
	}
	b.addFormer(c)
	return b
}

// addOwn adds the bounds of c without descendants.
func (b *bounds) addOwn(c *Counter) {
	peak := c.peak.Load()
	b.nodes++
	b.peak += peak
	b.highest = max(b.highest, peak)
	b.below -= c.lowest.Load()
	if c.hasShards() && c.batched.Load() && !c.exact {
		c.each(func(s *shardCounts) {
			for o := range ops {
				b.unpublished += s.unpublished(o)
			}
		})
	}
}

// add adds the bounds of a child. The peaks need not have coincided.
func (b *bounds) add(of bounds) {
	b.peak += of.peak
	b.unpublished += of.unpublished
	b.highest = max(b.highest, of.highest)
	b.below += of.below
	b.nodes += of.nodes
}

// addFormer adds those of the children of c that have ended.
func (b *bounds) addFormer(c *Counter) {
	if f := c.kin().former; f != nil {
		b.peak = max(f.peak, b.peak+f.since.peak)
		b.unpublished = max(f.unpublished, b.unpublished+f.since.unpublished)
		b.highest = max(b.highest, f.highest)
		b.below += f.below
	}
	b.peak = max(b.peak, c.kin().shown.Load())
}

// setPeak sets the peak of a snapshot of c. What it shows as live stays below the peak.
func (c *Counter) setPeak(s *Stats, b bounds) {
	b.peak = max(b.peak, s.LiveBytes)
	if c.offspring == nil {
		raise(&c.peak, s.LiveBytes)
		b.highest, b.below = b.peak, 0
	} else {
		raise(&c.offspring.shown, s.LiveBytes)
	}
	s.PeakBytes = b.peak
	s.PeakBound = s.PeakBytes - max(b.highest-b.below, s.LiveBytes, c.kin().shown.Load()) + b.unpublished
}
