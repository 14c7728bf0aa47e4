package tracer

import (
	"time"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/region"
)

// A Summary is what a region had to do with memory: [Region.Summary].
type Summary struct {
	counter.Stats // but for Classes

	MovedInBytes, MovedOutBytes int64         // see Region.Move
	Waits                       int64         // how often an allocation waited for room, see blockalloc.Limit
	WaitTime                    time.Duration // how long in all
	Escaped                     Escaped
	Children                    []ChildShare // the first 8 that allocated or freed inside, in the order in which they came
	SuppressedSpans             int64        // directly inside, for want of a Budget
}

// Escaped is what was allocated inside a region and is still live, whoever may have it now. Only [Lifetimes]
// can say so, of the Proxies that it observes. A block that was handed on by [Region.Move] counts as
// escaped.
type Escaped struct {
	Known         bool  // there is a Lifetimes
	Exact         bool  // it has seen all bytes that the region has allocated, and sampled each block
	Blocks, Bytes int64 // an estimate unless Exact
	BytesError    int64 // standard error of Bytes; 0 if Exact
}

// A ChildShare is what a child allocated and freed inside a region.
type ChildShare struct {
	Name                       string
	AllocatedBytes, FreedBytes int64
}

// Stats returns the region's numbers so far. They are exact at rest, the peak too: its bound is
// zero. Live is what was allocated inside or moved in, less what was freed inside or moved out.
// Classes are not counted.
func (r *Region) Stats() counter.Stats {
	if r == nil {
		return counter.Stats{}
	}
	return statsOf(r.inside.Totals())
}

func statsOf(t region.Totals) counter.Stats {
	return counter.Stats{
		Allocations: t.Allocations, Reallocations: t.Reallocations, Frees: t.Frees,
		FailedAllocations: t.Failures[0], FailedReallocations: t.Failures[1], FailedFrees: t.Failures[2],
		RequestedBytes: t.RequestedBytes, AllocatedBytes: t.AllocatedBytes, FreedBytes: t.FreedBytes,
		LiveBytes: t.LiveBytes, LiveBlocks: t.LiveBlocks, PeakBytes: t.PeakBytes,
	}
}

// Summary returns the region's numbers so far. That of a nil Region is zero.
func (r *Region) Summary() Summary {
	if r == nil {
		return Summary{}
	}
	t := r.inside.Totals()
	s := Summary{
		Stats:        statsOf(t),
		MovedInBytes: t.MovedInBytes, MovedOutBytes: t.MovedOutBytes,
		Waits: t.Waits, WaitTime: t.Waited,
		Escaped:         r.escaped(t.AllocatedBytes),
		SuppressedSpans: int64(r.failures.suppressed.Load()),
	}
	for _, share := range r.inside.Shares() {
		s.Children = append(s.Children, ChildShare(share))
	}
	return s
}
