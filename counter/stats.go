package counter

import (
	"encoding/json"
	"fmt"
	"math/bits"
	"strings"
)

// Stats is a snapshot of a [Counter], or the difference of two. The counts of
// operations are of those that succeeded, but for the Failed ones. Blocks of size
// zero are empty and not counted.
type Stats struct {
	Allocations         int64 `json:"allocations"`
	Reallocations       int64 `json:"reallocations"`
	Frees               int64 `json:"frees"` // by Free; a reallocation to size zero is a reallocation
	FailedAllocations   int64 `json:"failed_allocations"`
	FailedReallocations int64 `json:"failed_reallocations"`
	FailedFrees         int64 `json:"failed_frees"`

	RequestedBytes int64 `json:"requested_bytes"` // asked for by allocations and reallocations, in all
	AllocatedBytes int64 `json:"allocated_bytes"` // granted to them, in all; what goes beyond RequestedBytes is slack
	FreedBytes     int64 `json:"freed_bytes"`     // given back by frees and reallocations, in all
	LiveBytes      int64 `json:"live_bytes"`      // AllocatedBytes - FreedBytes; in a snapshot at least 0
	LiveBlocks     int64 `json:"live_blocks"`     // in a snapshot at least 0

	// LiveRequestedBytes is what was asked for of the blocks that are live: LiveBytes without their slack. A program's
	// own figures can be compared to it. In a snapshot it is at least 0 and at most LiveBytes, and at rest it is exact.
	LiveRequestedBytes int64 `json:"live_requested_bytes"`

	// PeakBytes is the most that was live, give or take PeakBound. A block counts until its
	// allocator has taken it back.
	//
	// The peak is exact, and its bound zero, for a Counter of [Exact], and for others as long
	// as they have counted 64 blocks of a size, or only blocks of 512 KiB and more. Otherwise
	// it was looked at now and then: for each size and processor when 512 KiB had come or
	// gone, or 128 blocks. Then PeakBytes is not more than what was live, and mostly much
	// nearer than the bound says.
	//
	// For a Counter with children PeakBytes is the sum of the peaks of those that were there
	// at the same time. These need not have coincided: the peak of all may have been lower, by
	// PeakBound at most.
	PeakBytes int64 `json:"peak_bytes"`
	PeakBound int64 `json:"peak_bound"`

	Classes Classes `json:"classes"` // blocks by size
}

var _ Source = Stats{}

// Stats returns s: a snapshot is a [Source] that does not change.
func (s Stats) Stats() Stats { return s }

// Sub returns what happened between the snapshot t and the later snapshot s of
// the same Source. The live figures are what was allocated in between less what was freed,
// and may be negative. The peak is that of s.
func (s Stats) Sub(t Stats) Stats {
	s.Allocations -= t.Allocations
	s.Reallocations -= t.Reallocations
	s.Frees -= t.Frees
	s.FailedAllocations -= t.FailedAllocations
	s.FailedReallocations -= t.FailedReallocations
	s.FailedFrees -= t.FailedFrees
	s.RequestedBytes -= t.RequestedBytes
	s.AllocatedBytes -= t.AllocatedBytes
	s.FreedBytes -= t.FreedBytes
	s.LiveBytes = s.AllocatedBytes - s.FreedBytes
	s.LiveRequestedBytes -= t.LiveRequestedBytes
	s.LiveBlocks = 0
	for i := range s.Classes {
		s.Classes[i].Allocated -= t.Classes[i].Allocated
		s.Classes[i].Freed -= t.Classes[i].Freed
		s.LiveBlocks += s.Classes[i].Live()
	}
	return s
}

// Add returns the numbers of s and t, of different Sources, together. Their peaks need not have
// coincided: the peak is the sum, and its bound says how far below it that of both may have been.
func (s Stats) Add(t Stats) Stats {
	sum := s.Sub(Stats{}.Sub(t)) // all that adds up
	sum.LiveBytes = s.LiveBytes + t.LiveBytes
	sum.LiveRequestedBytes = s.LiveRequestedBytes + t.LiveRequestedBytes
	sum.LiveBlocks = s.LiveBlocks + t.LiveBlocks
	sum.PeakBytes = s.PeakBytes + t.PeakBytes
	least := max(s.PeakBytes-s.PeakBound, t.PeakBytes-t.PeakBound, sum.LiveBytes)
	sum.PeakBound = max(sum.PeakBytes-least, s.PeakBound+t.PeakBound)
	return sum
}

// Failures is the number of operations that failed.
func (s Stats) Failures() int64 {
	return s.FailedAllocations + s.FailedReallocations + s.FailedFrees
}

// String returns one line, for example
//
//	live 64 KiB in 1 block, peak 128 KiB; 2 allocations, 0 reallocations, 1 free, 0 failures; allocated 128 KiB, freed 64 KiB
func (s Stats) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "live %s in %s, peak %s", FormatBytes(s.LiveBytes), plural(s.LiveBlocks, "block"), FormatBytes(s.PeakBytes))
	if s.PeakBound != 0 {
		fmt.Fprintf(&b, " (± %s)", FormatBytes(s.PeakBound))
	}
	fmt.Fprintf(&b, "; %s, %s, %s, %s; allocated %s, freed %s",
		plural(s.Allocations, "allocation"), plural(s.Reallocations, "reallocation"), plural(s.Frees, "free"), plural(s.Failures(), "failure"),
		FormatBytes(s.AllocatedBytes), FormatBytes(s.FreedBytes))
	return b.String()
}

func plural(n int64, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// FormatBytes writes n bytes for people, with a unit of 1024 and at most two
// decimals: "0 B", "4 KiB", "1.5 MiB", "-64 KiB".
func FormatBytes(n int64) string {
	size, sign := uint64(n), ""
	if n < 0 {
		size, sign = -size, "-"
	}
	if size < 1<<10 {
		return fmt.Sprintf("%s%d B", sign, size)
	}
	unit := (bits.Len64(size) - 1) / 10
	text := fmt.Sprintf("%.2f", float64(size)/float64(uint64(1)<<(10*unit)))
	text = strings.TrimRight(strings.TrimRight(text, "0"), ".")
	return fmt.Sprintf("%s%s %ciB", sign, text, "BKMGTPE"[unit])
}

// NumClasses is the number of size classes.
const NumClasses = 64

// A Class counts the blocks of one size class, in all.
type Class struct {
	Allocated int64 // by allocations and reallocations
	Freed     int64 // by frees and reallocations
}

// Live is the number of blocks of the class that are live, or by how many their
// number changed in a difference.
func (c Class) Live() int64 { return c.Allocated - c.Freed }

// Classes counts blocks by size: Classes[i] those of more than 1<<(i-1) and at
// most 1<<i bytes. In JSON it is a list of the classes that are not all zero,
// {"size": 4096, "allocated": 2, "freed": 1}, in which size is the largest of the
// class in bytes.
type Classes [NumClasses]Class

type classJSON struct {
	Size      uint64 `json:"size"`
	Allocated int64  `json:"allocated"`
	Freed     int64  `json:"freed"`
}

// MarshalJSON implements [json.Marshaler].
func (c Classes) MarshalJSON() ([]byte, error) {
	list := []classJSON{}
	for i, class := range c {
		if class != (Class{}) {
			list = append(list, classJSON{1 << i, class.Allocated, class.Freed})
		}
	}
	return json.Marshal(list)
}

// UnmarshalJSON implements [json.Unmarshaler]. It refuses sizes that are no power
// of two or stand twice.
func (c *Classes) UnmarshalJSON(data []byte) error {
	var list []classJSON
	if err := json.Unmarshal(data, &list); err != nil {
		return err
	}
	var classes Classes
	for _, j := range list {
		if bits.OnesCount64(j.Size) != 1 {
			return fmt.Errorf("counter: Classes.UnmarshalJSON: size %d is not a power of two", j.Size)
		}
		class := &classes[bits.TrailingZeros64(j.Size)]
		if *class != (Class{}) {
			return fmt.Errorf("counter: Classes.UnmarshalJSON: size %d stands twice", j.Size)
		}
		*class = Class{j.Allocated, j.Freed}
	}
	*c = classes
	return nil
}
