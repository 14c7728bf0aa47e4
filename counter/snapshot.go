package counter

// rereads bounds how often a snapshot is taken again because blocks were released
// meanwhile.
const rereads = 16

// Stats takes a snapshot of c and its descendants. At rest it is exact but for the
// peak, which has a bound. While operations go on, what it shows as live is at least
// zero, and more than what was live at some moment during the call by no more than the
// operations under way. It is read again if blocks were released meanwhile; where
// they are released without pause, about one snapshot in a hundred gives up after 16
// times and shows less than was live. Totals never step back from one snapshot to
// the next. It costs
// about 800 loads for each Counter, some two microseconds, and as much for each of its
// shards, if there are any.
func (c *Counter) Stats() Stats {
	v := c.view()
	for reread := 1; ; reread++ {
		before := v.released()
		s, after := v.snapshot()
		whole := v.whole()
		if after == before && whole || reread == rereads {
			return s
		}
		if !whole {
			v = c.view()
		}
	}
}

// A view is what a snapshot is taken of.
type view struct {
	nodes   []*Counter
	tallies []*tally // of them all
}

func (c *Counter) view() (v view) {
	v.nodes = c.tree(make([]*Counter, 0, 1))
	v.tallies = make([]*tally, 0, len(v.nodes))
	for _, n := range v.nodes {
		v.tallies = n.all(v.tallies)
	}
	return v
}

// whole reports whether nothing has come to be that is not in v: neither nodes nor
// tallies ever go.
func (v view) whole() bool {
	nodes := 1
	var tallies []*tally
	for _, n := range v.nodes {
		n.mu.Lock()
		nodes += len(n.children)
		n.mu.Unlock()
		tallies = n.all(tallies)
	}
	return nodes == len(v.nodes) && len(tallies) == len(v.tallies)
}

// released is the number of blocks that are counted as released.
func (v view) released() int64 {
	var sum total
	for _, t := range v.tallies {
		sum.add(t, freed)
		sum.add(t, reallocatedFrom)
	}
	return sum.blocks
}

// snapshot reads all once, and also returns released at its end. What was released it
// reads in all tallies that there are by then: a release that it misses came after all
// acquisitions that it has seen, so that it never shows more as live than was live.
func (v view) snapshot() (Stats, int64) {
	of := v.acquired()
	return v.nodes[0].view().snapshotOf(of)
}

// acquired reads the first half of a snapshot: the ways by which blocks come.
func (v view) acquired() (of [ways]total) {
	for w := allocated; w <= reallocatedTo; w++ {
		for _, t := range v.tallies {
			of[w].add(t, w)
		}
	}
	return of
}

// snapshotOf reads the second half of a snapshot, after acquired.
func (v view) snapshotOf(of [ways]total) (s Stats, released int64) {
	for _, t := range v.tallies {
		of[reallocatedFrom].add(t, reallocatedFrom)
		of[freed].add(t, freed)
	}
	s.Allocations = of[allocated].blocks
	s.Reallocations = of[reallocatedFrom].blocks
	s.Frees = of[freed].blocks
	s.AllocatedBytes = of[allocated].bytes + of[reallocatedTo].bytes
	s.FreedBytes = of[reallocatedFrom].bytes + of[freed].bytes
	// Requested bytes are counted before their blocks, and read after them: they are
	// at least those of the blocks that are seen, and at most what was requested by now.
	requested := of[allocated].bytes - of[allocated].withSlack
	for _, t := range v.tallies {
		requested += t.requested.Load()
	}
	s.RequestedBytes = min(requested, s.AllocatedBytes)
	s.LiveBytes = max(0, s.AllocatedBytes-s.FreedBytes)
	s.LiveBlocks = max(0, of[allocated].blocks+of[reallocatedTo].blocks-of[reallocatedFrom].blocks-of[freed].blocks)
	for i := range s.Classes {
		s.Classes[i].Allocated = of[allocated].classes[i] + of[reallocatedTo].classes[i]
		s.Classes[i].Freed = of[reallocatedFrom].classes[i] + of[freed].classes[i]
	}
	for _, n := range v.nodes {
		s.FailedAllocations += n.failedAllocations.Load()
		s.FailedReallocations += n.failedReallocations.Load()
		s.FailedFrees += n.failedFrees.Load()
	}
	v.peak(&s, of[allocated].untold+of[reallocatedTo].untold+of[reallocatedFrom].untold+of[freed].untold)
	return s, of[reallocatedFrom].blocks + of[freed].blocks
}

// peak sets s's peak, of which tallies may not have told so many bytes.
func (v view) peak(s *Stats, untold int64) {
	root := v.nodes[0]
	if root.exact {
		untold = 0
	}
	if len(v.nodes) == 1 { // what has been shown as live stays below the peak
		raise(&root.level.peak, s.LiveBytes)
	} else {
		raise(&root.shown, s.LiveBytes)
	}
	// The peaks of several Counters need not have coincided: that of all was at
	// most their sum, and at least the highest of them, less what others were
	// below zero, because blocks were freed there that were allocated elsewhere.
	var highest, below int64
	for _, n := range v.nodes {
		peak := n.level.peak.Load()
		s.PeakBytes += peak
		highest = max(highest, peak)
		below -= n.lowest.Load()
	}
	s.PeakBytes = max(s.PeakBytes, root.shown.Load())
	if len(v.nodes) == 1 {
		highest, below = s.PeakBytes, 0
	}
	s.PeakBound = s.PeakBytes - max(highest-below, s.LiveBytes) + untold
}

// total adds up flows of one way.
type total struct {
	blocks, bytes int64
	withSlack     int64 // bytes of those that were allocated with slack
	untold        int64 // bytes at most that levels have not been told of
	classes       [NumClasses]int64
}

// add reads bytes before blocks, and countOdd counts blocks before bytes: bytes
// that are seen belong to blocks that are seen, whose number tells whether
// anything was released meanwhile.
func (sum *total) add(t *tally, w way) {
	f := &t.flows[w]
	sum.bytes += f.otherSize.Load()
	if w == allocated {
		sum.addSlack(t)
	}
	var most int64
	for i := range f.powers {
		powers, others := f.powers[i].Load(), f.others[i].Load()
		sum.classes[i] += powers + others
		sum.blocks += powers + others
		sum.bytes += powers << i
		sum.untold += min(powers, int64(t.mask[i].Load())) << i
		if int64(1)<<i <= unit {
			most = max(most, others)
		}
	}
	if most > early {
		sum.untold += unit
	}
}

// addSlack adds up blocks that were allocated with slack, but for the number of those in flows.
func (sum *total) addSlack(t *tally) {
	slack := t.slackOthers.Load()
	for i := range t.slackPowers {
		blocks := t.slackPowers[i].Load()
		sum.classes[i] += blocks
		sum.blocks += blocks
		slack += blocks << i
		sum.untold += min(blocks, int64(t.mask[i].Load())) << i
	}
	sum.bytes += slack
	sum.withSlack += slack
}
