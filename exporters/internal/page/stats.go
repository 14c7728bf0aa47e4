package page

import "github.com/alloctrace/alloctrace/counter"

// StatsOf returns the numbers of a Proxy.
func StatsOf(s counter.Stats) Stats {
	return Stats{
		Live: s.LiveBytes, LiveBlocks: s.LiveBlocks, Slack: s.LiveBytes - s.LiveRequestedBytes, Peak: s.PeakBytes, PeakBound: s.PeakBound,
		Allocated: s.AllocatedBytes, Freed: s.FreedBytes,
		Allocations: s.Allocations, Reallocations: s.Reallocations, Frees: s.Frees,
		FailedAllocations: s.FailedAllocations, FailedReallocations: s.FailedReallocations, FailedFrees: s.FailedFrees,
	}
}

// ClassesOf returns the classes of sizes that there are.
func ClassesOf(s counter.Stats) *Classes {
	c := &Classes{Size: []int64{}, Live: []int64{}, Allocations: []int64{}}
	for i, class := range s.Classes {
		if class.Allocated > 0 && i < 63 { // no block has 2^63 bytes
			c.Size, c.Live, c.Allocations = append(c.Size, 1<<i), append(c.Live, class.Live()), append(c.Allocations, class.Allocated)
		}
	}
	return c
}
