package counter

// rereads bounds how often a snapshot is taken again because blocks were released
// meanwhile.
const rereads = 16

// Stats takes a snapshot of c and its descendants. At rest it is exact. While
// operations go on, what it shows as live is at least zero, and more than what was
// live at some moment during the call by no more than the operations under way.
// It is read again if blocks were released meanwhile; where they are released
// without pause, about one snapshot in a hundred gives up after 16 times and shows
// less than was live. Totals never step back from one snapshot to the next, but for
// RequestedBytes, by the slack of allocations under way. It costs about 800 loads
// for each Counter, some two microseconds.
func (c *Counter) Stats() Stats {
	nodes := c.tree(make([]*Counter, 0, 1))
	for reread := 1; ; reread++ {
		before := released(nodes)
		s, after := snapshot(nodes)
		if after == before || reread == rereads {
			return s
		}
	}
}

// released is the number of blocks that nodes count as released.
func released(nodes []*Counter) int64 {
	var t total
	for _, n := range nodes {
		t.add(&n.freed)
		t.add(&n.reallocatedFrom)
	}
	return t.blocks
}

// snapshot reads the nodes once, and also returns released at its end.
func snapshot(nodes []*Counter) (Stats, int64) {
	var s Stats
	var slack int64
	var allocated, reallocatedTo, reallocatedFrom, freed total
	for _, n := range nodes { // before the allocations, which are counted before their slack
		slack += n.slack.Load()
	}
	for _, n := range nodes {
		allocated.add(&n.allocated)
		reallocatedTo.add(&n.reallocatedTo)
	}
	for _, n := range nodes {
		reallocatedFrom.add(&n.reallocatedFrom)
		freed.add(&n.freed)
	}
	var highest int64
	foreign := false
	for _, n := range nodes {
		peak := n.peak.Load()
		s.PeakBytes += peak
		highest = max(highest, peak)
		foreign = foreign || n.foreign.Load()
		s.FailedAllocations += n.failedAllocations.Load()
		s.FailedReallocations += n.failedReallocations.Load()
		s.FailedFrees += n.failedFrees.Load()
	}
	s.Allocations = allocated.blocks
	s.Reallocations = reallocatedFrom.blocks
	s.Frees = freed.blocks
	s.AllocatedBytes = allocated.bytes + reallocatedTo.bytes
	s.FreedBytes = reallocatedFrom.bytes + freed.bytes
	s.RequestedBytes = s.AllocatedBytes - slack
	s.LiveBytes = max(0, s.AllocatedBytes-s.FreedBytes)
	s.LiveBlocks = max(0, allocated.blocks+reallocatedTo.blocks-reallocatedFrom.blocks-freed.blocks)
	for i := range s.Classes {
		s.Classes[i].Allocated = allocated.classes[i] + reallocatedTo.classes[i]
		s.Classes[i].Freed = reallocatedFrom.classes[i] + freed.classes[i]
	}
	// The peaks of several Counters need not have coincided: the true peak is
	// between the highest of them and their sum. Where one Counter's blocks were
	// freed through another, only what is live now is certain.
	if len(nodes) > 1 {
		if foreign {
			highest = s.LiveBytes
		}
		s.PeakBound = s.PeakBytes - highest
	}
	return s, reallocatedFrom.blocks + freed.blocks
}

// total adds up flows.
type total struct {
	blocks, bytes int64
	classes       [NumClasses]int64
}

// add reads bytes before blocks, and flow.add counts blocks before bytes: bytes
// that are seen belong to blocks that are seen, whose number tells whether
// anything was released meanwhile.
func (t *total) add(f *flow) {
	t.bytes += f.otherSize.Load()
	for i := range f.powers {
		powers, others := f.powers[i].Load(), f.others[i].Load()
		t.classes[i] += powers + others
		t.blocks += powers + others
		t.bytes += powers << i
	}
}
