package tracer

import (
	"time"

	"github.com/alloctrace/alloctrace/counter"
)

// A Summary is what a region had to do with memory: [Region.Summary].
type Summary struct {
	counter.Stats // but for Classes

	Waits    int64         // how often an allocation waited for room, see blockalloc.Limit
	WaitTime time.Duration // how long in all

	Escaped  Escaped
	Children []ChildShare // at most 8, in the order in which they came

	SuppressedSpans int64 // of failures and regions directly inside, for want of a [Budget]
}

// Escaped is what was allocated inside a region and is still live. Only a hook that knows blocks
// can say so: see Lifetimes.
type Escaped struct {
	Known         bool  // a hook knows blocks
	Exact         bool  // it knows all of them
	Blocks, Bytes int64 // an estimate unless Exact
	BytesError    int64 // standard error of Bytes; 0 if Exact
}

// A ChildShare is what a child allocated and freed inside a region.
type ChildShare struct {
	Name                       string
	AllocatedBytes, FreedBytes int64
}

// Summary returns the region's numbers so far. That of a nil Region is zero.
func (r *Region) Summary() Summary {
	return Summary{Stats: r.Stats()}
}
