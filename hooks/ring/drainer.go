package ring

import (
	"context"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/hooks"
)

// A Drainer delivers the events of a [Ring] to another Hook, from a goroutine of its own:
// those who allocate pay for the Ring and not for the hook, which may be slow, and may
// allocate through the Proxy that is observed.
//
// Events come in the order of the Ring, which is that in which they happened for those of
// one goroutine, also if it changes processors. They come with a background context, and some
// milliseconds late. Those that the Ring has overwritten before they could be
// delivered are counted as dropped.
type Drainer struct {
	ring      *Ring
	next      alloctrace.Hook
	parts     map[string]alloctrace.Hook // those of next, by the name of the child
	every     time.Duration
	done      map[*ringShard]uint64 // records delivered or dropped
	dropped   atomic.Uint64
	delivered atomic.Uint64

	mu    sync.Mutex // held while events are delivered
	stop  chan struct{}
	once  sync.Once
	ended sync.WaitGroup
}

var _ hooks.UsageSource = (*Drainer)(nil)

// NewDrainer starts a Drainer that delivers to next, at these intervals, what r has by then. It
// runs until Close. It delivers what r has already, too.
func NewDrainer(r *Ring, next alloctrace.Hook, every time.Duration) *Drainer {
	d := &Drainer{ring: r, next: next, parts: make(map[string]alloctrace.Hook), every: max(every, time.Microsecond), stop: make(chan struct{}), done: make(map[*ringShard]uint64)}
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

// Flush delivers all that was written before it was called. What somebody is just writing, and what
// comes meanwhile, waits for the next time.
func (d *Drainer) Flush() { d.flush(false) }

// flush does not look at what comes meanwhile: the hook may be the reason.
func (d *Drainer) flush(last bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	var cursors []cursor
	for _, c := range d.ring.cursors() {
		if c.n = d.done[c.s]; d.advance(&c, last) {
			cursors = append(cursors, c)
		}
	}
	for len(cursors) > 0 {
		i := earliest(cursors)
		d.delivered.Add(1)
		rec := d.ring.record(&cursors[i])
		d.part(rec.Child).Observe(context.Background(), rec.Event, rec.Err)
		if !d.advance(&cursors[i], last) {
			cursors = append(cursors[:i], cursors[i+1:]...)
		}
	}
}

// part returns the part of the hook for a child.
func (d *Drainer) part(child string) alloctrace.Hook {
	part := d.parts[child]
	if part == nil {
		part = (&alloctrace.Attachment{Child: child}).Attach(d.next)
		d.parts[child] = part
	}
	return part
}

// advance goes to the next record, the one before being done, and reports whether it is
// there. Those that were overwritten, or are never going to be written, are counted.
func (d *Drainer) advance(c *cursor, last bool) bool {
	for ; c.n < c.end; d.dropped.Add(1) {
		d.done[c.s] = c.n
		c.n++
		if c.read() {
			return !c.after()
		}
		if !c.s.overwritten(c.n) && !last { // it is being written
			return false
		}
	}
	d.done[c.s] = c.n
	return false
}

// Dropped returns how many events were overwritten before they could be delivered.
func (d *Drainer) Dropped() uint64 { return d.dropped.Load() }

// Delivered returns how many events were delivered.
func (d *Drainer) Delivered() uint64 { return d.delivered.Load() }

// Usage returns what d has done and takes, without what the Ring and the hook do. Those who
// allocate do not wait for a Drainer. Usage does not wait for the hook.
func (d *Drainer) Usage() hooks.Usage {
	delivered, dropped := int64(d.Delivered()), int64(d.Dropped())
	return hooks.Usage{
		Events:  delivered + dropped,
		Sampled: delivered,
		Dropped: dropped,
		Bytes:   int64(unsafe.Sizeof(*d)) + int64(len(d.ring.all()))*int64(unsafe.Sizeof((*ringShard)(nil))+unsafe.Sizeof(uint64(0))),
	}
}

// Close delivers what is left and ends the Drainer. Events that come later stay in the
// Ring; one that was never written to its end counts as dropped.
func (d *Drainer) Close() error {
	d.once.Do(func() { close(d.stop) })
	d.ended.Wait()
	d.flush(true)
	return nil
}
