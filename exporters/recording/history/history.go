package history

import (
	"iter"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/exporters/recording"
)

// Options say what a [History] counts, and who is called. The zero value counts all and calls nobody.
type Options struct {
	// Keep reports whether a block that was acquired at a site in a region is to be counted. Nil means all.
	Keep func(s *Site, region string) bool

	// Observe is called with every event, before it is counted.
	Observe func(e recording.Event)

	// Changed is called when what is live of a site has changed by so much.
	Changed func(at time.Duration, s *Site, region string, by Amount)

	// Ended is called for each block, once: when it is certain that it was released, or at the end.
	Ended func(b Block)

	// Moments are times, in order, before which Reached is called: when all events up to then were counted.
	Moments []time.Duration
	Reached func(moment int, h *History)
}

// A History knows which blocks are live, by the events up to a moment, and what each [Site] has allocated. One goroutine may
// use it. A live block takes some 100 bytes.
//
// A block is known by its Proxy and its address: one Proxy around another may have a block at the same address. Two Proxies of one
// name that share a Recorder, one around the other, cannot be told apart.
//
// A failure takes back the last release at its address of its size.
type History struct {
	options Options
	sites   sites
	blocks  blocks
	regions map[string]uint32
	names   []string // of regions
	proxies map[string]uint32

	now     time.Duration
	began   bool
	first   time.Duration
	moment  int
	counts  Counts
	unknown Unknown
	live    Amount
	peak    Amount
	peakAt  time.Duration
	epoch   int64         // changes with the peak
	since   time.Duration // of the last gap, or the first event
	ended   bool
}

// Counts is how many events there are, and of how many operations.
type Counts struct {
	Events             int64 `json:"events"`
	Allocations        int64 `json:"allocations"`   // that succeeded, as reallocations, those to nothing included, and frees
	Reallocations      int64 `json:"reallocations"` // or have not ended
	Frees              int64 `json:"frees"`
	AllocateFailures   int64 `json:"allocate_failures"`
	ReallocateFailures int64 `json:"reallocate_failures"`
	FreeFailures       int64 `json:"free_failures"`
}

// Unknown is what a recording leaves open.
type Unknown struct {
	Dropped int64    `json:"dropped"`          // events that are missing
	Gaps    int64    `json:"gaps"`             // places where some are
	Damage  []string `json:"damage,omitempty"` // what could not be read, a sentence each

	// Older are releases of blocks that were acquired before the first event, and so were live in the beginning. Those that
	// were not released are not known at all.
	Older Amount `json:"older"`
	// Unmatched are releases of blocks after events were dropped that are older, or whose acquisition is missing.
	Unmatched Amount `json:"unmatched"`
	// Lost are blocks whose release is missing: another one was acquired where they were.
	Lost Amount `json:"lost"`
	// Uncertain are live, but before the last gap they were too: their release may be missing.
	Uncertain Amount `json:"uncertain"`
}

// New returns a History that has no event yet.
func New(o Options) *History {
	return &History{options: o, sites: newSites(), blocks: newBlocks(), regions: make(map[string]uint32), proxies: make(map[string]uint32), epoch: 1}
}

// Add counts the next event.
func (h *History) Add(e recording.Event) {
	h.reach(e.At, false)
	if !h.began {
		h.began, h.first, h.since = true, e.At, e.At
	}
	h.now = e.At
	if h.options.Observe != nil {
		h.options.Observe(e)
	}
	if e.Dropped > 0 {
		h.unknown.Dropped += e.Dropped
		h.gap()
		return
	}
	c := &h.counts
	c.Events++
	switch e.Kind {
	case alloctrace.Allocated:
		c.Allocations++
		h.acquire(e)
	case alloctrace.Reallocated:
		h.acquire(e)
	case alloctrace.Reallocating:
		c.Reallocations++
		h.release(e)
	case alloctrace.Freeing:
		c.Frees++
		h.release(e)
	case alloctrace.AllocateFailed:
		c.AllocateFailures++
	case alloctrace.ReallocateFailed:
		c.ReallocateFailures++
		if e.Addr != 0 {
			c.Reallocations = max(0, c.Reallocations-1)
		}
		h.restore(e)
	case alloctrace.FreeFailed:
		c.FreeFailures++
		c.Frees = max(0, c.Frees-1)
		h.restore(e)
	}
}

// Damaged counts that some events cannot be read.
func (h *History) Damaged(err error) {
	h.unknown.Damage = append(h.unknown.Damage, err.Error())
	h.gap()
}

func (h *History) gap() {
	h.unknown.Gaps++
	h.since = h.now
	h.blocks.gap++
}

// End says that there are no more events up to a time. Ended is called for what is live.
func (h *History) End(at time.Duration) {
	if h.ended {
		return
	}
	h.ended = true
	h.reach(at, true)
	h.now = max(h.now, at)
	for i := range h.blocks.slots {
		switch s := &h.blocks.slots[i]; {
		case s.state == stateLive:
			h.tell(s, Block{Live: true})
		case s.state == stateReleased:
			h.settle(uint32(i))
		}
	}
}

// reach calls Reached for the moments before a time, or up to it.
func (h *History) reach(at time.Duration, including bool) {
	for h.moment < len(h.options.Moments) && (h.options.Moments[h.moment] < at || including && h.options.Moments[h.moment] == at) {
		h.options.Reached(h.moment, h)
		h.moment++
	}
}

// change changes what is live of a site.
func (h *History) change(s *Site, region uint32, blocks, bytes int64) {
	if s.epoch != h.epoch {
		s.kept, s.epoch = s.Live, h.epoch
	}
	s.Live.add(blocks, bytes)
	h.live.add(blocks, bytes)
	if h.live.Bytes > h.peak.Bytes {
		h.peak, h.peakAt = h.live, h.now
		h.epoch++
	}
	o := s.owner
	o.Live.add(blocks, bytes)
	if o.Live.Bytes > o.Peak.Bytes {
		o.Peak, o.PeakAt = o.Live, h.now
	}
	if h.options.Changed != nil {
		h.options.Changed(h.now, s, h.names[region], Amount{blocks, bytes})
	}
}

// Live returns what is live. Blocks that are older than the recording are not in it.
func (h *History) Live() Amount { return h.live }

// Peak returns the most bytes that were live, and when that was first.
func (h *History) Peak() (Amount, time.Duration) { return h.peak, h.peakAt }

// AtPeak returns what of s was live at the peak.
func (h *History) AtPeak(s *Site) Amount {
	if s.epoch != h.epoch {
		return s.Live
	}
	return s.kept
}

// Now returns the time of the last event, or of the end.
func (h *History) Now() time.Duration { return h.now }

// Counts returns how many events there were, of all sites.
func (h *History) Counts() Counts { return h.counts }

// Sites returns the sites that have a block that was counted, in the order in which they were seen. They change with the next event.
func (h *History) Sites() (list []*Site) {
	for _, s := range h.sites.list {
		if s.Allocated.Blocks > 0 {
			list = append(list, s)
		}
	}
	return list
}

// An Owner is a Proxy, or a child of it.
type Owner struct {
	Proxy     string        `json:"proxy,omitempty"`
	Child     string        `json:"child,omitempty"`
	Allocated Amount        `json:"allocated"`
	Live      Amount        `json:"live"`
	Peak      Amount        `json:"peak"` // its own
	PeakAt    time.Duration `json:"peak_ns"`
}

// Owners returns the Proxies and children in the order in which they were seen.
func (h *History) Owners() []Owner {
	list := []Owner{}
	for _, o := range h.sites.order {
		if o.seen {
			list = append(list, o.Owner)
		}
	}
	return list
}

// Unknown returns what is not known of what was counted so far.
func (h *History) Unknown() Unknown {
	u := h.unknown
	if u.Gaps == 0 {
		return u
	}
	for s := range h.slots() {
		if s.gap != h.blocks.gap {
			u.Uncertain.add(1, int64(s.size))
		}
	}
	return u
}

// slots yields those of live blocks that are counted.
func (h *History) slots() iter.Seq[*slot] {
	return func(yield func(*slot) bool) {
		for i := range h.blocks.slots {
			if s := &h.blocks.slots[i]; s.state == stateLive && s.counted && !yield(s) {
				return
			}
		}
	}
}
