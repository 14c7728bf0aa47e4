package hooks

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/alloctrace/alloctrace"
)

// A Drainer tells the events of a [Ring] to another Hook, from a goroutine of its own:
// those who allocate pay for the Ring and not for the hook, which may be slow, and may
// allocate through the Proxy that is observed.
//
// Events come in the order of the Ring, which is that in which they happened for those of
// one goroutine, also if it changes processors. They come with a background context, and some
// milliseconds late. Those that the Ring has written over before they could be told
// are counted as dropped.
type Drainer struct {
	ring    *Ring
	next    alloctrace.Hook
	every   time.Duration
	done    map[*ringShard]uint64 // records told or dropped
	dropped atomic.Uint64
	told    atomic.Uint64

	mu    sync.Mutex // held while events are told
	stop  chan struct{}
	once  sync.Once
	ended sync.WaitGroup
}

// Drain starts a Drainer that looks at ring in intervals, and goes on until Close.
// What ring has by now is told too.
func Drain(ring *Ring, next alloctrace.Hook, interval time.Duration) *Drainer {
	d := &Drainer{ring: ring, next: next, every: max(interval, time.Microsecond), stop: make(chan struct{}), done: make(map[*ringShard]uint64)}
	d.ended.Go(d.run)
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

// Flush tells all that was written before it was called. What somebody is just writing, and what
// comes meanwhile, waits for the next time.
func (d *Drainer) Flush() { d.flush(false) }

// flush does not look at what comes meanwhile: the hook may be the reason.
func (d *Drainer) flush(last bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var cursors []cursor
	shards, cut := d.ring.cut()
	for _, s := range shards {
		c := cursor{s: s, n: d.done[s], end: uint64(s.head.Load()), cut: cut}
		if d.advance(&c, last) {
			cursors = append(cursors, c)
		}
	}
	for len(cursors) > 0 {
		i := earliest(cursors)
		d.told.Add(1)
		rec := d.ring.record(&cursors[i])
		d.next.Observe(context.Background(), rec.Event, rec.Err)
		if !d.advance(&cursors[i], last) {
			cursors = append(cursors[:i], cursors[i+1:]...)
		}
	}
}

// advance goes to the next record, the one before being done, and reports whether it is
// there. Those that were written over, or are never going to be written, are counted.
func (d *Drainer) advance(c *cursor, last bool) bool {
	for ; c.n < c.end; d.dropped.Add(1) {
		d.done[c.s] = c.n
		c.n++
		if c.read() {
			return !c.after()
		}
		if !c.s.gone(c.n) && !last { // it is being written
			return false
		}
	}
	d.done[c.s] = c.n
	return false
}

// Dropped returns how many events were written over before they could be told.
func (d *Drainer) Dropped() uint64 { return d.dropped.Load() }

// Told returns how many events were told.
func (d *Drainer) Told() uint64 { return d.told.Load() }

// Usage returns what d has done and takes, without what the Ring and the hook do. Those who
// allocate do not wait for a Drainer. Usage does not wait for the hook.
func (d *Drainer) Usage() Usage {
	told, dropped := int64(d.Told()), int64(d.Dropped())
	return Usage{
		Events:  told + dropped,
		Sampled: told,
		Dropped: dropped,
		Bytes:   int64(unsafe.Sizeof(*d)) + int64(len(d.ring.all()))*int64(unsafe.Sizeof((*ringShard)(nil))+unsafe.Sizeof(uint64(0))),
	}
}

// Close tells what is left and ends the Drainer. Events that come later stay in the
// Ring; one that was never written to its end counts as dropped.
func (d *Drainer) Close() error {
	d.once.Do(func() { close(d.stop) })
	d.ended.Wait()
	d.flush(true)
	return nil
}
