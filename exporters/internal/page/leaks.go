package page

import (
	"math/bits"
	"time"

	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// A Leak is a row of Leaks.
type Leak struct {
	Site                                    int
	Suspicion                               int
	Why                                     string
	Live, LiveBlocks                        int64
	Before, Freed, Added, Noise             int64
	OldestUS, NewestUS, LongestUS, Outlived int64
	Quarters                                []int64
}

// NewLeaks returns rows as columns. Lifetimes and quarters say whether the columns of these are known.
func NewLeaks(rows []Leak, lifetimes, quarters bool) *Leaks {
	l := &Leaks{
		Suspicion: []int{}, Why: []string{}, Site: []int{}, Live: []int64{}, LiveBlocks: []int64{}, Before: []int64{}, Freed: []int64{}, Added: []int64{},
		OldestUS: []int64{}, NewestUS: []int64{},
	}
	if lifetimes {
		l.LongestUS, l.Outlived = []int64{}, []int64{}
	}
	if quarters {
		l.Quarters = [][]int64{}
	} else {
		l.Noise = []int64{}
	}
	for _, r := range rows {
		l.Suspicion, l.Why, l.Site = append(l.Suspicion, r.Suspicion), append(l.Why, r.Why), append(l.Site, r.Site)
		l.Live, l.LiveBlocks = append(l.Live, r.Live), append(l.LiveBlocks, r.LiveBlocks)
		l.Before, l.Freed, l.Added = append(l.Before, r.Before), append(l.Freed, r.Freed), append(l.Added, r.Added)
		l.OldestUS, l.NewestUS = append(l.OldestUS, r.OldestUS), append(l.NewestUS, r.NewestUS)
		if lifetimes {
			l.LongestUS, l.Outlived = append(l.LongestUS, r.LongestUS), append(l.Outlived, r.Outlived)
		}
		if quarters {
			l.Quarters = append(l.Quarters, r.Quarters)
		} else {
			l.Noise = append(l.Noise, r.Noise)
		}
	}
	return l
}

// lifetimeClasses is how many classes of lifetimes there are: up to 2^40 microseconds, which is 12 days.
const lifetimeClasses = 41

// LifetimeClasses returns the longest time of each class.
func LifetimeClasses() []int64 {
	list := make([]int64, lifetimeClasses)
	for i := range list {
		list[i] = 1 << i
	}
	return list
}

// A Histogram counts blocks by how long they have lived.
type Histogram struct{ counts [lifetimeClasses]int64 }

// NewHistogram returns a Histogram of nothing.
func NewHistogram() *Histogram { return new(Histogram) }

// Add adds blocks that have lived so long.
func (h *Histogram) Add(d time.Duration, blocks int64) {
	class := 0
	if us := uint64(max(0, (d+time.Microsecond-1)/time.Microsecond)); us > 1 {
		class = min(bits.Len64(us-1), lifetimeClasses-1)
	}
	h.counts[class] += blocks
}

// Counts returns the blocks of each class, up to the last one that has any.
func (h *Histogram) Counts() []int64 {
	n := len(h.counts)
	for n > 0 && h.counts[n-1] == 0 {
		n--
	}
	return h.counts[:n:n]
}

// Lived returns the blocks as a heap profile has them, without bytes.
func (h *Histogram) Lived() (l heapprofile.Lived) {
	for class, blocks := range h.counts {
		if blocks > 0 {
			l.Blocks += blocks
			l.Times = append(l.Times, heapprofile.Times{Most: time.Microsecond << class, Blocks: blocks})
		}
	}
	return l
}

// Quantile returns how long the given share of blocks lives at most, in microseconds, and -1 if that is not known.
func Quantile(l *heapprofile.Lifetime, share float64) int64 {
	d, ok := l.Quantile(share)
	if !ok {
		return -1
	}
	return d.Microseconds()
}
