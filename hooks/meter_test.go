package hooks

import (
	"context"
	"errors"
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/alloctrace/alloctrace"
)

// A fakeClock goes on when it is read, and when a hook says so.
type fakeClock struct{ at time.Duration }

func (c *fakeClock) now() time.Duration {
	c.at += 13 // before it is read
	at := c.at
	c.at += 24 // after it
	return at
}

// lingering is a hook that takes as many nanoseconds as the block is large.
type lingering struct {
	clock *fakeClock
	calls int
}

func (l *lingering) Observe(_ context.Context, e alloctrace.Event, _ error) {
	l.calls++
	l.clock.at += time.Duration(e.Size)
}

// TestMeterIsUnbiased: over many Meters, times and events are right on average, and as far off as
// each says. Most events take less than the clock does, and some ten times as long.
func TestMeterIsUnbiased(t *testing.T) {
	const runs, events = 200, 1 << 15
	clock := new(fakeClock)
	hook := &lingering{clock: clock}
	size := func(i int) uintptr {
		if i%8 == 0 {
			return 200
		}
		return 20 + uintptr(i%8)
	}
	var total, squares float64
	for i := range events {
		total += float64(size(i))
		squares += float64(size(i)) * float64(size(i))
	}
	var time, variance, counted float64
	for range runs {
		m := NewMeter(hook)
		m.now = clock.now
		for i := range events {
			m.Observe(t.Context(), alloctrace.Event{Kind: alloctrace.Allocated, Addr: 64, Size: size(i), Align: 1}, nil)
		}
		u := m.Usage()
		time += float64(u.Time)
		variance += float64(u.TimeError) * float64(u.TimeError)
		counted += float64(u.Events)
	}
	if hook.calls != runs*events {
		t.Errorf("the hook observes %d events, want %d", hook.calls, runs*events)
	}
	const n = meterEvery
	deviation := math.Sqrt(runs * (n - 1) * squares)
	if off := time - runs*total; math.Abs(off) > 5*deviation {
		t.Errorf("the sum of times is wrong by %.0f ns of %.0f ns, and by chance by %.0f ns", off, runs*total, deviation)
	}
	if off := counted - runs*events; math.Abs(off) > 5*math.Sqrt(runs*events*(n-1)) {
		t.Errorf("the sum of events is wrong by %.0f of %d, and by chance by %.0f", off, runs*events, math.Sqrt(runs*events*(n-1)))
	}
	// Likewise the variances that are shown.
	fourth := 0.0
	for i := range events {
		fourth += math.Pow(float64(size(i)), 4)
	}
	if off, deviation := variance-runs*(n-1)*squares, math.Sqrt(runs*n*n*(n-1)*fourth); math.Abs(off) > 5*deviation {
		t.Errorf("the sum of variances is wrong by %.3g of %.3g, and by chance by %.3g", off, runs*(n-1)*squares, deviation)
	}
}

// TestMeterTogether: several goroutines use a Meter, and nothing that it counts is lost.
func TestMeterTogether(t *testing.T) {
	const goroutines, each = 8, 20_000
	var calls atomic.Int64
	m := NewMeter(alloctrace.HookFunc(func(context.Context, alloctrace.Event, error) { calls.Add(1) }))
	m.now = func() time.Duration { return 0 }
	var wg sync.WaitGroup
	for range goroutines {
		wg.Go(func() {
			for i := range each {
				m.Observe(context.Background(), alloctrace.Event{Kind: alloctrace.Allocated, Addr: 64, Size: 64, Align: 64}, nil)
				if i%1000 == 0 {
					m.Usage()
				}
			}
		})
	}
	wg.Wait()
	const n = goroutines * each
	if u := m.Usage(); calls.Load() != n || u.Time != 0 || u.TimeError != 0 || math.Abs(float64(u.Events-n)) > 5*math.Sqrt(n*(meterEvery-1)) {
		t.Errorf("of %d events %d were handed on, and the usage is %+v", n, calls.Load(), u)
	}

	const adds = 100_000
	timed := m.timed.Load()
	for range goroutines {
		wg.Go(func() {
			for range adds {
				m.add(100, 150, 150+50+3)
			}
		})
	}
	wg.Wait()
	if m.timed.Load()-timed != goroutines*adds || m.Usage().Time != 3*goroutines*adds*meterEvery || math.Float64frombits(m.squares.Load()) != 9*goroutines*adds {
		t.Errorf("%d events of 3 ns are %+v, from %d times", goroutines*adds, m.Usage(), m.timed.Load()-timed)
	}
}

// used is a hook that counts its events, and reports other usage.
type used struct {
	events []alloctrace.Event
	errs   []error
}

func (u *used) Observe(_ context.Context, e alloctrace.Event, err error) {
	u.events, u.errs = append(u.events, e), append(u.errs, err)
}

func (u *used) Usage() Usage {
	return Usage{Events: int64(len(u.events)), Sampled: 5, Dropped: 6, Bytes: 7}
}

// uncounted is a hook that does not count its events.
type uncounted struct{ used }

func (*uncounted) Usage() Usage { return Usage{Bytes: 7} }

// TestMeterUsage: what the hook reports is reported too, and time does not step back.
func TestMeterUsage(t *testing.T) {
	failure := errors.New("not today")
	hook := new(used)
	m := NewMeter(hook)
	m.Observe(t.Context(), alloctrace.Event{Kind: alloctrace.AllocateFailed, Size: 64, Align: 64}, failure)
	m.Observe(t.Context(), alloctrace.Event{Kind: alloctrace.Allocated, Addr: 4096, Size: 64, Align: 64}, nil)
	if u, of := m.Usage(), hook.Usage(); u.Events != 2 || u.Sampled != of.Sampled || u.Dropped != of.Dropped || u.Bytes != of.Bytes {
		t.Errorf("the usage is %+v, and the hook's %+v", u, of)
	}
	if len(hook.events) != 2 || hook.errs[0] != failure || hook.events[1].Addr != 4096 {
		t.Errorf("the hook has observed %+v with the errors %v", hook.events, hook.errs)
	}

	m = NewMeter(new(uncounted))
	for _, step := range []struct{ took, want time.Duration }{{-5, 0}, {105, 100}, {-30, 100}, {20, 100}, {20, 110}} {
		m.add(0, 10, 20+step.took)
		if u := m.Usage(); u.Time != step.want*meterEvery {
			t.Errorf("after %d ns more the time is %d times %v, want %v", step.took, meterEvery, u.Time/meterEvery, step.want)
		}
	}
	if u := m.Usage(); u.Events != 5*meterEvery || u.Bytes == 0 || u.TimeError != time.Duration(math.Sqrt(meterEvery*(meterEvery-1)*(25+105*105+900+400+400))) {
		t.Errorf("the usage is %+v", u)
	}
}

// TestMeterAllocatesNothing: neither events that are timed nor others cost anything on the Go
// heap.
func TestMeterAllocatesNothing(t *testing.T) {
	m := NewMeter(alloctrace.HookFunc(func(context.Context, alloctrace.Event, error) {}))
	if n := testing.AllocsPerRun(10, func() {
		for range 20 * meterEvery {
			m.Observe(t.Context(), alloctrace.Event{Kind: alloctrace.Allocated, Addr: 4096, Size: 64, Align: 64}, nil)
			m.Observe(t.Context(), alloctrace.Event{Kind: alloctrace.Freeing, Addr: 4096, Size: 64, Align: 64}, nil)
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
