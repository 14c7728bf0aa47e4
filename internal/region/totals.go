package region

import "time"

// Totals are a region's numbers.
type Totals struct {
	Allocations, Reallocations, Frees int64
	Failures                          [3]int64 // allocate, reallocate, free

	RequestedBytes, AllocatedBytes, FreedBytes int64
	MovedInBytes, MovedOutBytes                int64
	LiveBytes, LiveBlocks                      int64 // at least 0, whatever was freed that comes from elsewhere
	PeakBytes                                  int64

	Waits  int64
	Waited time.Duration
}

// Totals takes a snapshot of r, which is exact at rest. While operations go on, the live figures
// are at most what was live at some moment during the call and the operations under way.
func (r *Region) Totals() Totals {
	before := r.released()
	for n := 1; ; n++ {
		t, released := r.totals()
		if released == before || n == rereads {
			return t
		}
		before = released
	}
}

// totals reads all counts once, and returns the releases among them.
func (r *Region) totals() (t Totals, released int64) {
	var blocks, bytes, slack int64
	r.each(func(c *cell) {
		t.Allocations += c.allocations.Load()
		t.AllocatedBytes += c.in.Load()
	})
	m := r.hasMore()
	blocks, bytes = m.movedIn.blocks.Load(), m.movedIn.bytes.Load()
	t.MovedInBytes = bytes
	r.each(func(c *cell) {
		t.Frees += c.frees.Load()
		t.Reallocations += c.reallocations.Load()
		t.FreedBytes += c.out.Load()
		slack += c.slack.Load()
	})
	t.RequestedBytes = max(0, t.AllocatedBytes-slack)
	released = t.Frees + t.Reallocations
	if m = r.hasMore(); m != &nothingMore {
		blocks -= m.movedOut.blocks.Load() + m.dissolved.Load()
		t.MovedOutBytes = m.movedOut.bytes.Load()
		bytes -= t.MovedOutBytes
		released += m.moved.Load()
		for i := range t.Failures {
			t.Failures[i] = m.failures[i].Load()
		}
		t.Waits, t.Waited = m.waits.Load(), time.Duration(m.waited.Load())
	}
	t.LiveBytes = max(0, t.AllocatedBytes-t.FreedBytes+bytes)
	t.LiveBlocks = max(0, t.Allocations-t.Frees+blocks)
	t.PeakBytes = r.peak.Load()
	return t, released
}
