package tracer

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A Budget is a ceiling on how many spans are started in a second, whatever the load. Regions,
// failures and lifetimes share it if they are given the same one, by [WithBudget]. A tenth of it is
// left to failures and leaks. It may be used by several goroutines at once.
//
// What is beyond the budget has no span. It is counted, by [Budget.Suppressed], and on the span of
// the region around it as allocator.spans.suppressed. A region without a span counts
// what is allocated inside as all regions do.
type Budget struct {
	start      time.Time
	until      atomic.Int64 // before this time since start the budget is spent, but for what is reserved
	suppressed atomic.Int64

	mu    sync.Mutex
	spans []time.Duration // when the last ones were started, since start
	next  int             // the oldest of them
}

// NewBudget returns a Budget of so many spans in any second. It takes 8 bytes for each of them. A
// span costs a look at the clock and a lock more; one that is suppressed costs a look at the clock.
func NewBudget(spansPerSecond int) *Budget {
	if spansPerSecond <= 0 {
		panic(fmt.Sprintf("tracer: NewBudget(%d): use the number of spans that may be started in a second, such as 100", spansPerSecond))
	}
	b := &Budget{start: time.Now(), spans: make([]time.Duration, spansPerSecond)}
	for i := range b.spans {
		b.spans[i] = -time.Second // so long ago that it does not count
	}
	return b
}

// Suppressed returns how many spans were not started for want of budget.
func (b *Budget) Suppressed() int64 { return b.suppressed.Load() }

// take reports whether a span may be started now. A nil Budget has no bound.
func (b *Budget) take() bool {
	if b == nil || int64(time.Since(b.start)) >= b.until.Load() && b.takeBut(len(b.spans)/10) {
		return true
	}
	b.suppressed.Add(1)
	return false
}

// takeReserved is take for failures and leaks.
func (b *Budget) takeReserved() bool {
	if b == nil || b.takeBut(0) {
		return true
	}
	b.suppressed.Add(1)
	return false
}

// takeBut takes from the budget if so much more of it would be left.
func (b *Budget) takeBut(reserved int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := time.Since(b.start)
	if free := b.spans[(b.next+reserved)%len(b.spans)] + time.Second; now < free {
		if reserved > 0 || len(b.spans) < 10 {
			b.until.Store(int64(free))
		}
		return false
	}
	b.spans[b.next] = now
	b.next = (b.next + 1) % len(b.spans)
	return true
}
