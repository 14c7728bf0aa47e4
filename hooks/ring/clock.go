package ring

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A Clock gives a [Ring] the time of each event, in nanoseconds since 1970 UTC. It may be used by
// several goroutines at once.
type Clock interface {
	Now() int64
}

// PreciseClock returns the system's clock: as exact as that is, at the cost of [time.Now], some
// tens of nanoseconds a call.
func PreciseClock() Clock { return preciseClock{} }

type preciseClock struct{}

func (preciseClock) Now() int64 { return time.Now().UnixNano() }

// A CoarseClock is a [Clock] that a goroutine of its own sets now and then. To read
// it costs a load. It is behind by its resolution and the delays of the scheduler, and
// never runs backwards: after its start it does not follow steps of the system's clock.
type CoarseClock struct {
	now  atomic.Int64
	stop chan struct{}
	done sync.WaitGroup
	once sync.Once
}

// NewCoarseClock starts a CoarseClock that is set once in each resolution, which must
// be at least 10 µs: for less than a millisecond it takes a good part of a processor. It
// runs until Close.
func NewCoarseClock(resolution time.Duration) *CoarseClock {
	if resolution < 10*time.Microsecond {
		panic(fmt.Sprintf("ring: NewCoarseClock(%v): use a resolution of 10µs or more, or PreciseClock", resolution))
	}
	c := &CoarseClock{stop: make(chan struct{})}
	start := time.Now()
	c.now.Store(start.UnixNano())
	ticker := time.NewTicker(resolution)
	c.done.Go(func() {
		defer ticker.Stop()
		for {
			select {
			case <-c.stop:
				return
			case <-ticker.C:
				c.now.Store(start.Add(time.Since(start)).UnixNano()) // by the monotonic clock
			}
		}
	})
	return c
}

// Now returns the time at which the clock was last set.
func (c *CoarseClock) Now() int64 { return c.now.Load() }

// Close stops the clock, which then stands still.
func (c *CoarseClock) Close() error {
	c.once.Do(func() { close(c.stop) })
	c.done.Wait()
	return nil
}
