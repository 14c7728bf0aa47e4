package counter

// A snapshot is read again if blocks were released meanwhile, up to rereads times. Where there
// are many Counters it is read less often, so that some manyNodes are read in all.
const (
	rereads   = 16
	manyNodes = 1024
)

// Stats takes a snapshot of c and its descendants. At rest it is exact, but for the peak, which
// has a bound. While operations go on, the live figures are at least zero, and at most what was
// live at some moment during the call and the operations under way. Totals never step back
// from one snapshot to the next.
//
// If blocks are released meanwhile the counts are read again, up to 16 times, so that the live
// figures are not too low. Where blocks are released without pause, one snapshot in a hundred
// is. With more than 64 descendants they are read less often, and with more than 1,000 once.
//
// Stats costs a microsecond, 50 to 130 nanoseconds for each descendant, and some 800 loads for
// each processor on which c or one of these is busy. Child and Fold of the same tree wait for it.
func (c *Counter) Stats() Stats {
	root := c.top()
	root.mu.Lock()
	defer root.mu.Unlock()
	if c.final != nil {
		return *c.final
	}
	return c.stats()
}

// stats is Stats for callers that hold the root's mu.
func (c *Counter) stats() Stats {
	root := c.top()
	many := c.kin().descendants >= manyNodes
	var before int64
	if !many {
		before = c.released()
	}
	for read := 1; ; read++ {
		grown := root.grown.Load()
		var s snapshot
		s.acquire(c)
		b := s.release(c)
		after := s.ops[reallocatedFrom].blocks() + s.ops[freed].blocks()
		if many || after == before && root.grown.Load() == grown || read >= min(rereads, manyNodes/s.nodes) {
			return s.stats(c, b)
		}
		before = after
	}
}

// released is the number of blocks that are counted as released.
func (c *Counter) released() (blocks int64) {
	for i := range c.early.counts {
		v := c.early.counts[i].Load()
		if v == 0 {
			break
		}
		if kind(v&kindMask).op() >= reallocatedFrom {
			blocks += int64(v >> kindBits)
		}
	}
	if c.earlyOnly() {
		return blocks
	}
	c.all(func(s *shardCounts) {
		var sum total
		sum.add(s, freed)
		sum.add(s, reallocatedFrom)
		blocks += sum.blocks()
	})
	for _, child := range c.kin().children {
		blocks += child.released()
	}
	return blocks
}

// A snapshot adds up the counts of a Counter and its descendants in two passes. What was
// released it reads in all shards that there are by then: a release that it misses came
// after all acquisitions that it has seen, so that it never shows more as live than was live.
type snapshot struct {
	ops        [ops]total
	requested  int64 // of blocks with slack, and by reallocations
	slackFreed int64
	failures   [3]int64
	nodes      int
}

// acquire is the first pass: the ops by which blocks come.
func (s *snapshot) acquire(c *Counter) {
	s.nodes++
	addEarly(&s.ops, c, allocated)
	if c.earlyOnly() {
		return
	}
	c.all(func(counts *shardCounts) {
		s.ops[allocated].add(counts, allocated)
		s.ops[reallocatedTo].add(counts, reallocatedTo)
	})
	for _, child := range c.kin().children {
		s.acquire(child)
	}
}

// release is the second pass. Requested bytes are counted before their blocks, and read
// after them: they are at least those of the blocks that were seen, and at most what was
// requested by now. It returns what is known of the peak.
func (s *snapshot) release(c *Counter) bounds {
	var b bounds
	s.addReleased(c, &b)
	return b
}

func (s *snapshot) addReleased(c *Counter, b *bounds) {
	if addEarly(&s.ops, c, reallocatedFrom) {
		s.requested += c.earlySums.requested.Load()
	}
	has := c.early.has.Load()
	if has&hasSlackFreed != 0 {
		s.slackFreed += c.earlySlackFreed.Load()
	}
	if has&hasFailures != 0 {
		s.failures[0] += c.failedAllocations.Load()
		s.failures[1] += c.failedReallocations.Load()
		s.failures[2] += c.failedFrees.Load()
	}
	if c.earlyOnly() {
		b.addOwn(c)
		return
	}
	c.all(func(counts *shardCounts) {
		s.ops[reallocatedFrom].add(counts, reallocatedFrom)
		s.ops[freed].add(counts, freed)
		s.requested += counts.requested.Load()
		s.slackFreed += counts.slackFreed.Load()
	})
	var of bounds
	of.addOwn(c)
	for _, child := range c.kin().children {
		s.addReleased(child, &of)
	}
	of.addFormer(c)
	b.add(of)
}

// stats returns the figures, after both passes over c, of which the second has returned b.
func (s *snapshot) stats(c *Counter, b bounds) (stats Stats) {
	in, moved, from, out := &s.ops[allocated], &s.ops[reallocatedTo], &s.ops[reallocatedFrom], &s.ops[freed]
	stats.Allocations = in.blocks()
	stats.Reallocations = from.blocks()
	stats.Frees = out.blocks()
	stats.FailedAllocations, stats.FailedReallocations, stats.FailedFrees = s.failures[0], s.failures[1], s.failures[2]
	allocatedBytes := in.bytes()
	stats.AllocatedBytes = allocatedBytes + moved.bytes()
	stats.FreedBytes = from.bytes() + out.bytes()
	stats.RequestedBytes = min(allocatedBytes-in.withSlack+s.requested, stats.AllocatedBytes)
	stats.LiveBytes = max(0, stats.AllocatedBytes-stats.FreedBytes)
	stats.LiveRequestedBytes = min(max(0, stats.RequestedBytes-(stats.FreedBytes-s.slackFreed)), stats.LiveBytes)
	stats.LiveBlocks = max(0, stats.Allocations+moved.blocks()-stats.Reallocations-stats.Frees)
	for i := range stats.Classes {
		stats.Classes[i].Allocated = in.powers[i] + in.others[i] + moved.powers[i] + moved.others[i]
		stats.Classes[i].Freed = from.powers[i] + from.others[i] + out.powers[i] + out.others[i]
	}
	c.setPeak(&stats, b)
	return stats
}

// total adds up the blocks of one op.
type total struct {
	powers, others [NumClasses]int64 // as in opCounts
	otherBytes     int64
	withSlack      int64 // bytes of blocks that were allocated with slack, all of which the above have too
}

func (sum *total) blocks() (blocks int64) {
	for i := range sum.powers {
		blocks += sum.powers[i] + sum.others[i]
	}
	return blocks
}

func (sum *total) bytes() int64 {
	bytes := sum.otherBytes
	for i, blocks := range sum.powers {
		bytes += blocks << i
	}
	return bytes
}

// add reads bytes before blocks, and countOdd counts blocks before bytes: bytes
// that are seen belong to blocks that are seen, whose number says whether
// anything was released meanwhile.
func (sum *total) add(s *shardCounts, o op) {
	counts := &s.ops[o]
	sum.otherBytes += counts.otherBytes.Load()
	if o == allocated {
		sum.addSlack(s)
	}
	for i := range counts.powers {
		sum.powers[i] += counts.powers[i].Load()
		sum.others[i] += counts.others[i].Load()
	}
}

// addSlack adds up blocks that were allocated with slack, but for the number of those in ops.
func (sum *total) addSlack(s *shardCounts) {
	slack := s.slackOthers.Load()
	sum.otherBytes += slack
	for i := range s.slackPowers {
		blocks := s.slackPowers[i].Load()
		sum.powers[i] += blocks
		slack += blocks << i
	}
	sum.withSlack += slack
}

// addEarly adds up the early blocks of the ops from first, which is one by which blocks come or
// go, to the next one. It reads bytes before blocks, as add does, and only if there are any of
// their kind, which saves a cache line. It reports whether earlySums.requested counts.
func addEarly(sums *[ops]total, c *Counter, first op) (requested bool) {
	withBytes := false
	for i := range c.early.counts {
		v := c.early.counts[i].Load()
		if v == 0 {
			break
		}
		k := kind(v & kindMask)
		o, sizes := k.op(), k.sizes()
		requested = requested || o == reallocatedTo || o == allocated && sizes != power
		if o>>1 != first>>1 {
			continue
		}
		sum := &sums[o%ops]
		switch sizes {
		case power:
			sum.powers[k.class()] += int64(v >> kindBits)
		case slacks:
			sum.powers[k.class()] += int64(v >> kindBits)
			sum.withSlack += int64(v>>kindBits) << k.class()
		case other:
			if !withBytes {
				withBytes = true
				addEarlyBytes(sums, c, first)
			}
			sum.others[k.class()] += int64(c.early.counts[i].Load() >> kindBits)
		}
	}
	return requested
}

// addEarlyBytes is the part of addEarly that reads bytes.
func addEarlyBytes(sums *[ops]total, c *Counter, first op) {
	for o := first; o <= first+1; o++ {
		sums[o].otherBytes += c.earlySums.otherBytes[o].Load()
	}
	if first == allocated {
		slack := c.earlySums.slackOthers.Load()
		sums[allocated].otherBytes += slack
		sums[allocated].withSlack += slack
	}
}
