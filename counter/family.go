package counter

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/alloctrace/alloctrace/internal/shard"
)

// A family is what a Counter knows of its place in a tree. The root's mu guards it in all
// Counters of the tree, with their offspring, but for growing and grown.
type family struct {
	parent, root *Counter // nil in the root
	place        int      // among the parent's children
	final        *Stats   // nil unless it has ended
	mu           sync.Mutex
	growing      sync.Mutex   // held by what changes shards
	grown        atomic.Int64 // the root's: how many shards' counts were made in the tree
}

// offspring is what a Counter with children has of them.
type offspring struct {
	children    []*Counter
	descendants int
	former      *former      // nil if no child has ended
	shown       atomic.Int64 // the most that a snapshot of all has had as live
}

var noOffspring offspring

// kin returns c's offspring, which is not to be written if there is none.
func (c *Counter) kin() *offspring {
	if c.offspring == nil {
		return &noOffspring
	}
	return c.offspring
}

// addDescendants adds n to the descendants of c, and of those whose descendant it is.
func (c *Counter) addDescendants(n int) {
	for ; c != nil; c = c.parent {
		c.offspring.descendants += n
	}
}

// former are the children that have ended.
type former struct {
	counts shardCounts
	busy   []*shardCounts // more of them, in which somebody may still be counting

	// What is known of the peak: bounds is of all, when a child last ended and its parent
	// looked; since is the sum of those that have ended later.
	bounds
	since bounds
	ends  int // how many these are
}

// endPeak is called when child is about to end.
//
// The peak was reached while some children were there. Those that were there at the same
// time are all there when the next of them ends, so that it is enough to add up peaks then.
// Where that are many, children that end meanwhile count as if they had been there at once.
func (f *former) endPeak(parent, child *Counter) {
	of := child.bounds()
	f.highest = max(f.highest, of.highest, child.kin().shown.Load())
	f.below += of.below
	if f.ends++; f.ends < f.nodes-fewNodes {
		f.since.peak += of.peak
		f.since.unpublished += of.unpublished
		return
	}
	f.bounds = parent.bounds()
	f.since, f.ends = bounds{}, 0
}

// fewNodes is how many Counters are looked at whenever a child ends.
const fewNodes = 64

// top returns the root of c's tree.
func (c *Counter) top() *Counter {
	if c.root != nil {
		return c.root
	}
	return c
}

// heir returns c, or who has its counts if it has ended.
func (c *Counter) heir() *Counter {
	for c.ended.Load() {
		c = c.parent
	}
	return c
}

// Child returns a new Counter whose counts are part of c's as well. It is exact if c is. c
// adds up its children when it is read, so that the child costs what a Counter of its own
// costs. c keeps the child until it has ended, see [Counter.Fold].
//
// Where one child counts a block as allocated and another one counts it as freed, their parent
// is right, and they are not.
func (c *Counter) Child() *Counter {
	root := c.top()
	root.mu.Lock()
	defer root.mu.Unlock()
	c = c.heir()
	if c.offspring == nil {
		c.offspring = new(offspring)
	}
	child := &Counter{peakTracker: peakTracker{exact: c.exact}, family: family{parent: c, root: root, place: len(c.offspring.children)}}
	c.offspring.children = append(c.offspring.children, child)
	c.addDescendants(1)
	return child
}

// Fold ends c if it is a child, has nothing live and has no children, and reports whether c has
// ended. The parent takes over its counts and no longer keeps it. The Stats of c stay what they
// were. What c counts after its end, for an operation that was under way, the parent counts.
//
// Fold costs what Stats costs. If c was busy, its memory is kept until the next garbage
// collection.
func (c *Counter) Fold() bool {
	if c.parent == nil {
		return false
	}
	root := c.top()
	root.mu.Lock()
	defer root.mu.Unlock()
	if c.final != nil {
		return true
	}
	if len(c.kin().children) > 0 {
		return false
	}
	s := c.stats()
	if s.LiveBlocks > 0 {
		return false
	}
	c.final = &s
	p := c.parent
	o := p.offspring
	if o.former == nil {
		o.former = new(former)
	}
	o.former.endPeak(p, c)
	end := len(o.children) - 1
	last := o.children[end]
	o.children[c.place], last.place = last, c.place
	o.children[end] = nil
	o.children = o.children[:end]
	p.addDescendants(-1)
	c.growing.Lock()
	c.ended.Store(true)
	c.growing.Unlock()
	c.drainLocked()
	return true
}

// drain hands what c, which has ended, has counted to its heir.
//
// Memory ordering: Fold stores ended before it drains, and who counts looks at ended
// afterwards. So one of the two finds each count, and takes it by an atomic swap. Where a
// processor counts without atomic operations, nobody looks: Fold takes its counts away and
// drains them when whoever was counting has unpinned.
func (c *Counter) drain() {
	root := c.top()
	root.mu.Lock()
	defer root.mu.Unlock()
	c.drainLocked()
}

// checkEnded is for those who have counted in a shard.
func (c *Counter) checkEnded() {
	if !shard.Pinned && c.ended.Load() {
		c.drain()
	}
}

func (c *Counter) drainLocked() {
	heir := c.heir()
	to := heir.offspring.former
	net := to.counts.takeEarly(c)
	if f := c.kin().former; f != nil { // those that ended before it, or have counted since
		net += to.counts.take(&f.counts)
		to.busy = append(to.busy, f.busy...)
		f.busy = nil
	}
	var busy []*shardCounts
	var then int64
	c.each(func(s *shardCounts) {
		if shard.Pinned && s.owned {
			busy = append(busy, s)
			then += s.netBytes()
		} else {
			net += to.counts.take(s)
		}
	})
	if len(busy) > 0 {
		for i := range shard.NumProcs {
			slotAt(c.shards.Load(), i).Store(nil)
		}
		to.busy = append(to.busy, busy...)
		net += then
		shard.AfterPins(func() { c.takeBusy(busy, then) })
	}
	if c.early.has.Load()&hasFailures != 0 {
		take(&heir.failedAllocations, &c.failedAllocations)
		take(&heir.failedReallocations, &c.failedReallocations)
		take(&heir.failedFrees, &c.failedFrees)
		heir.early.note(hasFailures)
	}
	heir.shift(net)
}

// takeBusy takes the counts of c's shards, in which nobody counts any more and which came to
// then when they were taken away from c.
func (c *Counter) takeBusy(busy []*shardCounts, then int64) {
	root := c.top()
	root.mu.Lock()
	defer root.mu.Unlock()
	heir := c.heir()
	to := heir.offspring.former
	net := -then
	for _, s := range busy {
		net += to.counts.take(s)
	}
	to.busy = slices.DeleteFunc(to.busy, func(s *shardCounts) bool { return slices.Contains(busy, s) })
	heir.shift(net)
}

// shift gives c's peakTracker the bytes that children have left: none, unless they have
// freed blocks of others, or counted after their end.
func (c *Counter) shift(net int64) {
	if net > 0 {
		c.move(net)
	} else {
		c.live.Add(net)
	}
}

// all calls f with all counts of c but the early ones, those of ended children included.
func (c *Counter) all(f func(*shardCounts)) {
	c.each(f)
	if former := c.kin().former; former != nil {
		f(&former.counts)
		for _, s := range former.busy {
			f(s)
		}
	}
}

// take moves the counts of from to s, and returns the bytes that these have as live.
func (s *shardCounts) take(from *shardCounts) (net int64) {
	for o := range ops {
		to, from := &s.ops[o], &from.ops[o]
		for i := range to.powers {
			net += o.direction() * take(&to.powers[i], &from.powers[i]) << i
			take(&to.others[i], &from.others[i])
		}
		net += o.direction() * take(&to.otherBytes, &from.otherBytes)
	}
	for i := range s.slackPowers {
		net += take(&s.slackPowers[i], &from.slackPowers[i]) << i
	}
	net += take(&s.slackOthers, &from.slackOthers)
	take(&s.requested, &from.requested)
	take(&s.slackFreed, &from.slackFreed)
	return net
}

// takeEarly moves early counts to s, and returns the bytes that these have as live.
func (s *shardCounts) takeEarly(from *Counter) (net int64) {
	for i := range from.early.counts {
		v := from.early.counts[i].And(kindMask)
		k, blocks := kind(v&kindMask), int64(v>>kindBits)
		if blocks == 0 {
			continue
		}
		o, class := k.op(), k.class()
		switch k.sizes() {
		case power:
			s.ops[o].powers[class].Add(blocks)
			net += o.direction() * blocks << class
		case other:
			s.ops[o].others[class].Add(blocks)
		case slacks:
			net += blocks << class
			if class < len(s.slackPowers) {
				s.slackPowers[class].Add(blocks)
			} else {
				s.ops[o].others[class].Add(blocks)
				s.slackOthers.Add(blocks << class)
			}
		}
	}
	for o := range ops {
		net += o.direction() * take(&s.ops[o].otherBytes, &from.earlySums.otherBytes[o])
	}
	net += take(&s.slackOthers, &from.earlySums.slackOthers)
	take(&s.requested, &from.earlySums.requested)
	take(&s.slackFreed, &from.earlySlackFreed)
	return net
}

// take moves what from has to to, and returns it.
func take(to, from *atomic.Int64) int64 {
	if from.Load() == 0 {
		return 0
	}
	n := from.Swap(0)
	to.Add(n)
	return n
}

// netBytes returns the bytes that s has as live.
func (s *shardCounts) netBytes() int64 {
	var sums [ops]total
	var net int64
	for o := range ops {
		sums[o].add(s, o)
		net += o.direction() * sums[o].bytes()
	}
	return net
}
