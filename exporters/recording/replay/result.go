package replay

import (
	"fmt"
	"strings"
	"time"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
)

// A Result is what a replay has done and measured.
type Result struct {
	Operations int64         `json:"operations"` // performed, with those that failed
	Skipped    Skipped       `json:"skipped"`
	Failed     int64         `json:"failures"`
	First      *Failure      `json:"first_failure,omitempty"` // the one of the earliest event
	Wall       time.Duration `json:"wall_ns"`                 // with filling and checking
	Calls      Calls         `json:"calls"`
	Late       time.Duration `json:"late_ns"` // with Options.Paced, by how much the latest operation was
	Peak       Live          `json:"peak"`
	Left       Live          `json:"left"` // live after the last event, and freed then
	Backend    *Backend      `json:"backend,omitempty"`
	Resident   Resident      `json:"resident"`
	Recorded   Recorded      `json:"recorded"`
}

// Calls are those of the allocator.
type Calls struct {
	Allocate   Call `json:"allocate"`
	Reallocate Call `json:"reallocate"`
	Free       Call `json:"free"`
}

// A Call says how many calls there were, and how long all took together. From 32,768 operations on that is an estimate: one call
// in 32 is timed, chosen by its number, so that the clock takes little time. What the clock itself takes is subtracted.
type Call struct {
	Count int64         `json:"count"`
	Time  time.Duration `json:"time_ns"`

	timed    int64
	measured time.Duration
}

// Backend is what a [blockalloc.Pool] or a [blockalloc.Slab] had when most was carved, or 0 for what they do not know. The bytes in
// use are those of whole slots. It is looked at every 4096 operations of the first goroutine, and after the last one.
type Backend struct {
	Reserved int64 `json:"reserved"` // bytes
	Carved   int64 `json:"carved"`   // bytes
	InUse    int64 `json:"in_use"`   // bytes
}

// Resident is how many bytes of the process were in memory, the Go heap included. It is 0 where that is not known: it is on
// Linux. The peak is that of looks as often as at Backend.
type Resident struct {
	Before int64 `json:"before"`
	Peak   int64 `json:"peak"`
	After  int64 `json:"after"` // with all blocks freed
}

// Slack returns the bytes that were granted beyond what was asked for.
func (l Live) Slack() int64 { return l.Granted - l.Requested }

// sampleEvery is how many operations go by between two looks at the memory.
const sampleEvery = 4096

// sample looks at the memory.
func (r *run) sample() {
	now := resident()
	b := backend(r.allocator)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.result.Resident.Peak = max(r.result.Resident.Peak, now)
	if b != nil && (r.result.Backend == nil || b.Carved > r.result.Backend.Carved) {
		r.result.Backend = b
	}
}

// backend returns what the first Slab or Pool of a has, nil if there is none.
func backend(a blockalloc.Allocator) *Backend {
	switch a := a.(type) {
	case *blockalloc.Pool:
		s := a.Stats()
		return &Backend{s.Reserved, s.Carved, s.LiveBytes}
	case *blockalloc.Slab:
		s := a.Stats()
		b := &Backend{Carved: s.BlockBytes + s.LargeBytes, InUse: s.LiveSlotBytes + s.LargeBytes}
		if below := backend(a.Parent()); below != nil {
			b.Reserved = below.Reserved
		}
		return b
	}
	for inner := range blockalloc.Inner(a) {
		if b := backend(inner); b != nil {
			return b
		}
	}
	return nil
}

// String returns a text of several lines.
func (r Result) String() string {
	var b strings.Builder
	inCalls := r.Calls.Allocate.Time + r.Calls.Reallocate.Time + r.Calls.Free.Time
	fmt.Fprintf(&b, "%d of %d operations in %v, some %v of it in the allocator; the recording took %v\n",
		r.Operations, r.Recorded.Operations, r.Wall.Round(time.Microsecond), inCalls.Round(time.Microsecond), r.Recorded.Duration.Round(time.Microsecond))
	for i, c := range []Call{r.Calls.Allocate, r.Calls.Reallocate, r.Calls.Free} {
		if c.Count > 0 {
			fmt.Fprintf(&b, "  %-10s %d times, some %v each\n", callNames[i], c.Count, c.Time/time.Duration(c.Count))
		}
	}
	for _, s := range []struct {
		n   int64
		why string
	}{
		{r.Skipped.Failed, "operations failed in the recording"},
		{r.Skipped.Unknown, "releases are of blocks whose acquisition is not there"},
		{r.Skipped.Dropped, "events were dropped by the recorder"},
		{r.Skipped.Unavailable, "operations are on blocks that could not be acquired here"},
	} {
		if s.n > 0 {
			fmt.Fprintf(&b, "skipped: %d %s\n", s.n, s.why)
		}
	}
	if r.Recorded.Lost > 0 {
		fmt.Fprintf(&b, "added: %d frees of blocks whose release is not there\n", r.Recorded.Lost)
	}
	fmt.Fprintf(&b, "peak: %v; in the recording %v\n", r.Peak, r.Recorded.Peak)
	if r.Backend != nil {
		fmt.Fprintf(&b, "allocator: %s in use of %s carved, %s reserved\n",
			counter.FormatBytes(r.Backend.InUse), counter.FormatBytes(r.Backend.Carved), counter.FormatBytes(r.Backend.Reserved))
	}
	if r.Resident.Before > 0 {
		fmt.Fprintf(&b, "resident: %s before, %s at the peak, %s after\n",
			counter.FormatBytes(r.Resident.Before), counter.FormatBytes(r.Resident.Peak), counter.FormatBytes(r.Resident.After))
	}
	if r.Left.Blocks > 0 {
		fmt.Fprintf(&b, "left live by the recording: %v\n", r.Left)
	}
	if r.Late > 0 {
		fmt.Fprintf(&b, "the latest operation was %v behind its time\n", r.Late.Round(time.Microsecond))
	}
	if r.Failed > 0 {
		fmt.Fprintf(&b, "failures: %d\n", r.Failed)
	}
	return b.String()
}

// String returns, for example, "1 MiB in 17 blocks, 1000 KiB of it asked for".
func (l Live) String() string {
	blocks := "blocks"
	if l.Blocks == 1 {
		blocks = "block"
	}
	return fmt.Sprintf("%s in %d %s, %s of it asked for", counter.FormatBytes(l.Granted), l.Blocks, blocks, counter.FormatBytes(l.Requested))
}
