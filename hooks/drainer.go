package hooks

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alloctrace/alloctrace"
)

// A Drainer tells the events of a [Ring] to another Hook, from a goroutine of its own:
// those who allocate pay for the Ring and not for the hook, which may be slow, and may
// allocate through the Proxy that is observed.
//
// Events come in the order of the Ring, with a background context, and some
// milliseconds late. Those that the Ring has written over before they could be told
// are counted as dropped.
type Drainer struct {
	ring    *Ring
	next    alloctrace.Hook
	every   time.Duration
	cursors []uint64 // by shard: records told or dropped
	dropped atomic.Uint64
	told    atomic.Uint64

	mu   sync.Mutex // held while events are told
	stop chan struct{}
	once sync.Once
	done sync.WaitGroup
}

// Drain starts a Drainer that looks at ring in intervals, and goes on until Close.
// What ring has by now is told too.
func Drain(ring *Ring, next alloctrace.Hook, interval time.Duration) *Drainer {
	d := &Drainer{ring: ring, next: next, every: max(interval, time.Microsecond), stop: make(chan struct{})}
	d.done.Go(d.run)
	return d
}

func (d *Drainer) run() {
	ticker := time.NewTicker(d.every)
	defer ticker.Stop()
	for {
		select {
		case <-d.stop:
			return
		case <-ticker.C:
			d.Flush()
		}
	}
}

// Flush tells all that was written before it was called. What somebody is just writing
// waits for the next time.
func (d *Drainer) Flush() { d.flush(false) }

func (d *Drainer) flush(last bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, s := range d.ring.shards() {
		if i == len(d.cursors) {
			d.cursors = append(d.cursors, 0)
		}
		d.cursors[i] = d.drain(s, d.cursors[i], last)
	}
}

// drain tells what is in s after record number done, and returns which was done last
// then. It does not look at what comes meanwhile: the hook may be the reason.
func (d *Drainer) drain(s *ringShard, done uint64, last bool) uint64 {
	for head := s.head.Load(); done < head; done++ {
		rec, ok := d.ring.read(s, done+1)
		switch now := s.head.Load(); {
		case ok:
			d.told.Add(1)
			d.next.Observe(context.Background(), rec.Event)
		case now-done > d.ring.size || last: // written over, or never to be written
			d.dropped.Add(1)
		default:
			return done // it is being written
		}
	}
	return done
}

// Dropped returns how many events were written over before they could be told.
func (d *Drainer) Dropped() uint64 { return d.dropped.Load() }

// Told returns how many events were told.
func (d *Drainer) Told() uint64 { return d.told.Load() }

// Close tells what is left and ends the Drainer. Events that come later stay in the
// Ring; one that was never written to its end counts as dropped.
func (d *Drainer) Close() error {
	d.once.Do(func() { close(d.stop) })
	d.done.Wait()
	d.flush(true)
	return nil
}
