package memlimit

import (
	"sync"
	"time"
)

// ticks is a goroutine that calls a function at intervals.
type ticks struct {
	stop  func()
	ended <-chan struct{}
}

// every has f called every so often with the time, until end. What takes longer than the interval misses ticks.
func every(interval time.Duration, f func(now time.Time)) ticks {
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(interval)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				return
			case now := <-ticker.C:
				f(now)
			}
		}
	}()
	return ticks{sync.OnceFunc(func() { close(stop) }), ended}
}

// end returns when no call is under way, and none will be. It may be called again.
func (t ticks) end() {
	t.stop()
	<-t.ended
}
