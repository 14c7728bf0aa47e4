package hooks

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/internal/random"
)

// A Meter is a Hook that hands on to another, and estimates for how long those who allocate wait
// for it. It may be used by several goroutines at once, and allocates nothing.
//
// It times one event in 1024, each drawn by itself, so that [Usage].Time is right on average
// whatever the events are, and [Usage].TimeError says how far off it may be: of 68 Meters
// in 100 no further. What reading the clock takes is taken out. It is time by the clock, with
// what a goroutine waits for locks and for its processor. An event that is not timed
// costs a random number and a call, and writes nothing.
//
// It times calls of Observe alone, not of the functions that a hook has given to
// [alloctrace.Attachment.OnRequested] or OnReleased: a recording notes acquisitions in such a one.
type Meter struct {
	next  alloctrace.Hook
	usage UsageSource // the hook's, or nil
	*meterTimes
}

// meterTimes is what a Meter has measured, with those that it is for each Proxy.
type meterTimes struct {
	now     func() time.Duration
	timed   atomic.Int64
	sum     atomic.Int64  // of their times in nanoseconds, of which some may be negative
	squares atomic.Uint64 // the bits of a float64: the sum of their squares
	shown   atomic.Int64  // the largest sum that Usage has returned
}

var _ alloctrace.Attacher = (*Meter)(nil)

// One event in meterEvery is timed.
const (
	meterEvery = 1 << 10
	meterBound = 1 << 32 / meterEvery
)

// NewMeter returns a Meter of h, to be given to a Proxy in its place.
func NewMeter(h alloctrace.Hook) *Meter {
	start := time.Now()
	m := &Meter{next: h, meterTimes: &meterTimes{now: func() time.Duration { return time.Since(start) }}}
	m.usage, _ = h.(UsageSource)
	return m
}

// Attach implements [alloctrace.Attacher].
func (m *Meter) Attach(to *alloctrace.Attachment) alloctrace.Hook {
	return &Meter{to.Attach(m.next), m.usage, m.meterTimes}
}

// Observe hands e on.
func (m *Meter) Observe(ctx context.Context, e alloctrace.Event, err error) {
	if random.Uint32() >= meterBound {
		m.next.Observe(ctx, e, err)
		return
	}
	t0, t1 := m.now(), m.now()
	m.next.Observe(ctx, e, err)
	m.add(t0, t1, m.now())
}

// add adds an event between t1 and t2. As much of the clock as was between them was also
// between t0 and t1.
func (m *Meter) add(t0, t1, t2 time.Duration) {
	took := int64((t2 - t1) - (t1 - t0))
	m.sum.Add(took)
	for {
		bits := m.squares.Load()
		if m.squares.CompareAndSwap(bits, math.Float64bits(math.Float64frombits(bits)+float64(took)*float64(took))) {
			break
		}
	}
	m.timed.Add(1)
}

// Usage returns that of the hook, if it has one, with Time and TimeError, and with Events, an
// estimate too, if the hook does not count them: 1024 for each that was timed. Time does not
// step back: for a hook that takes next to nothing the sum could, and is then shown as
// what it was.
func (m *Meter) Usage() Usage {
	timed := m.timed.Load() // before what the hook counts, which is then no longer 0
	var u Usage
	if m.usage != nil {
		u = m.usage.Usage()
	}
	if u.Events == 0 {
		u.Events = timed * meterEvery
	}
	sum := m.sum.Load()
	for shown := m.shown.Load(); ; shown = m.shown.Load() {
		if sum <= shown {
			sum = shown
			break
		}
		if m.shown.CompareAndSwap(shown, sum) {
			break
		}
	}
	u.Time = time.Duration(sum * meterEvery)
	// An event is timed with the probability 1/n, and counts n times: its part of the
	// variance is n-1 of its squares, each of which was seen with that probability.
	u.TimeError = time.Duration(math.Sqrt(meterEvery * (meterEvery - 1) * math.Float64frombits(m.squares.Load())))
	return u
}
