package heapprofile

import (
	"cmp"
	"math"
	"slices"

	"github.com/alloctrace/alloctrace/internal/text"
)

// charges sums up what spans charge to blocks.
//
// A span is seen if one of its blocks was sampled. As a block of size bytes is sampled with the probability 1-exp(-size/rate), a span of
// n live bytes is seen with the probability 1-exp(-n/rate), whatever blocks they are in. So its free bytes over that probability, if it
// is seen, are right on average (Horvitz and Thompson). They go to its oldest sampled block. Whether an older one was not sampled
// cannot be known. An estimate that is right on average for the oldest live block exists: of the sampled blocks of a span, the nth has
// (1/p)(1-1/p)^(n-1) of it, for a probability p. It is of no use, for its variance grows with the power of how many are live.
type charges struct {
	of       *Profile
	sites    []*PinnedSite
	byStack  map[origin]*PinnedSite
	byCalls  map[string]*PinnedSite
	bySite   map[*site]float64
	variance float64 // of the sum of all
	sorted   []*placed
}

func newCharges(of *Profile) *charges {
	return &charges{of: of, byStack: make(map[origin]*PinnedSite), byCalls: make(map[string]*PinnedSite), bySite: make(map[*site]float64)}
}

// chargeAll charges what is free in spans, which are by address, to blocks.
func (c *charges) chargeAll(r *PinnedReport, spans []span, blocks []placed) {
	slices.SortFunc(blocks, func(a, b placed) int { return cmp.Compare(a.addr, b.addr) })
	before := func(addr uintptr) int { // how many blocks
		i, _ := slices.BinarySearchFunc(blocks, addr, func(b placed, addr uintptr) int { return cmp.Compare(b.addr, addr) })
		return i
	}
	for i := range spans {
		s := &spans[i]
		r.Bytes += int64(s.Free)
		if s.Free == 0 {
			continue
		}
		in := blocks[before(s.Addr):before(max(s.Addr, s.Addr+s.Size))]
		switch {
		case len(in) > 0:
			r.Known += int64(s.Free)
			r.Rate = max(r.Rate, c.chargeTo(s, in))
		case s.live() > 0:
			r.Unknown += int64(s.Free)
		default:
			r.Empty += int64(s.Free)
		}
	}
}

// chargeTo charges what is free in s to the oldest of its sampled blocks, and returns the rate at which that was chosen.
func (c *charges) chargeTo(s *span, in []placed) int64 {
	c.sorted = c.sorted[:0]
	var sampled float64
	for i := range in {
		c.sorted = append(c.sorted, &in[i])
		sampled += float64(in[i].size)
	}
	slices.SortFunc(c.sorted, func(a, b *placed) int { return cmp.Compare(a.serial, b.serial) })
	first := c.sorted[0]
	rate := first.sampler.rate
	to := c.siteOf(first)
	s.charge = charge{to: to, chance: 1, share: 1, bytes: float64(s.Free)}
	if rate > 1 {
		live := max(float64(s.live()), sampled) // while others allocate and free, more may be known than was there
		s.chance = -math.Expm1(-live / float64(rate))
		s.bytes /= s.chance
		s.share = c.share(to, live-sampled, float64(rate))
		to.variance += s.bytes * s.bytes * (1 - s.share)
		c.variance += s.bytes * s.bytes * (1 - s.chance)
		c.covary(s)
	}
	to.estimate += s.bytes
	to.Known += int64(s.Free)
	to.Spans++
	if at := c.of.start.Add(first.since); to.Spans == 1 || at.Before(to.Oldest) {
		to.Oldest = at
	}
	c.bySite[first.site] += s.bytes
	return rate
}

// covary adds that spans are seen together: whoever sees one sees those that it is inside of.
func (c *charges) covary(s *span) {
	for outer := s.outer; outer != nil; outer = outer.outer {
		if outer.to == nil { // nothing is free
			continue
		}
		twice := 2 * s.bytes * outer.bytes
		c.variance += twice * (1 - outer.chance)
		if outer.to == s.to {
			s.to.variance += twice * (1 - outer.share)
		}
	}
}

// share estimates with which probability one of a site's blocks is sampled and the oldest one that is, of the span whose sampled blocks are in
// c.sorted. The bytes that were not sampled are taken as older than those that were, and as the site's as far as its sampled blocks stand for them.
func (c *charges) share(of *PinnedSite, unsampled, rate float64) float64 {
	var own, all, sum, older float64
	for _, b := range c.sorted {
		size := float64(b.size)
		missing := (b.weight() - 1) * size
		until := older + size
		all += missing
		if c.siteOf(b) == of {
			own += missing
			sum += math.Exp(-older/rate) - math.Exp(-until/rate)
		}
		older = until
	}
	later := math.Exp(-unsampled / rate)
	return own/max(all, unsampled, 1)*(1-later) + later*sum
}

// siteOf returns the site of the report that b counts for.
func (c *charges) siteOf(b *placed) *PinnedSite {
	by := c.of.originOf(&b.block)
	s := c.byStack[by]
	if s != nil {
		return s
	}
	stack := by.stack.frames()
	calls := string(appendText(appendFrames(nil, stack), by.owner))
	if s = c.byCalls[calls]; s == nil || len(stack) == 0 { // nobody knows who allocated those without calls
		s = &PinnedSite{Owner: text.Name(by.owner), Stack: stack}
		c.byCalls[calls] = s
		c.sites = append(c.sites, s)
	}
	s.Cut = s.Cut || len(by.stack.pcs) == maxFrames
	c.byStack[by] = s
	return s
}
