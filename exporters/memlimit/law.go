package memlimit

import "time"

const (
	floorShare   = 10       // the floor is at least this fraction of the budget
	floorLeast   = 16 << 20 // and this: a Go program that does little has some 10 MiB
	bandShare    = 100      // changes below this fraction of the budget are not made
	riseDuration = 2 * time.Second
)

// law is the control law, see the package comment. All are bytes; 0 < floor <= budget
// and 0 < band <= rise.
type law struct{ budget, floor, band, rise int64 }

// newLaw returns the law for a budget of at least one byte.
func newLaw(budget, floor int64, interval time.Duration) law {
	l := law{budget: budget}
	l.floor = min(budget, max(floor, budget/floorShare, floorLeast))
	l.band = max(1, budget/bandShare)
	rise := float64(budget) * min(1, interval.Seconds()/riseDuration.Seconds())
	l.rise = min(budget, max(l.band, int64(rise)))
	return l
}

// target is where the limit should be.
func (l law) target(offHeap int64) int64 {
	return max(l.floor, l.budget-min(l.budget, max(0, offHeap)))
}

// next is what the limit should be after this tick. It is limit itself if no call is
// to be made.
func (l law) next(limit, offHeap int64) int64 {
	limit = min(max(limit, l.floor), l.budget) // the budget may have changed
	switch target := l.target(offHeap); {
	case target <= limit-l.band:
		return target
	case target-l.band >= limit:
		return limit + min(l.rise, target-limit)
	}
	return limit
}
