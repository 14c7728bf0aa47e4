package recording

import (
	"math"
	"time"

	"github.com/alloctrace/alloctrace"
)

// A cursor goes through the records of a queue that are there.
type cursor struct {
	q         *queue
	next, end uint64
	at        uint64 // the time of the next record
	said      uint64 // events that were dropped, as records have said
	of        uint64 // the number of the reallocation that the next record ends, 0 if it ends none
}

// run takes events from the queues until Close.
func (r *Recorder) run() {
	defer close(r.done)
	ticker := time.NewTicker(min(20*time.Millisecond, r.options.FlushEvery))
	defer ticker.Stop()
	flushed := time.Now()
	for {
		select {
		case <-r.wake:
			r.take(r.now())
		case <-ticker.C:
			r.take(r.now())
			if time.Since(flushed) >= r.options.FlushEvery {
				_ = r.flush() // Close returns it
				flushed = time.Now()
			}
		case answer := <-r.ask:
			if answer == nil {
				r.end()
				return
			}
			r.take(r.now())
			answer <- r.flush()
		}
	}
}

func (r *Recorder) now() uint64 { return uint64(time.Since(r.began)) }

// take encodes what has happened up to a time, which is read before: whatever came before an event that is there by then
// is there too.
func (r *Recorder) take(until uint64) {
	r.open()
	for {
		first, second := -1, uint64(math.MaxUint64) // the cursor whose record comes first, and the time of the first of others
		for i := range r.cursors {
			switch c := &r.cursors[i]; {
			case c.next == c.end:
			case first < 0:
				first = i
			case c.at < r.cursors[first].at:
				second, first = r.cursors[first].at, i
			default:
				second = min(second, c.at)
			}
		}
		if first < 0 || r.cursors[first].at > until {
			break
		}
		c := &r.cursors[first]
		for c.next < c.end && c.at <= min(second, until) {
			r.encode(c)
			if c.next%tailEvery == 0 {
				c.q.tail.Store(c.next)
			}
		}
		c.q.tail.Store(c.next)
	}
}

// tailEvery is after how many records at most their room is free again: the line of tail is one that the queue's processor reads.
const tailEvery = 512

// open brings the cursors to the heads of their queues.
func (r *Recorder) open() {
	i := 0
	for q := range r.all() {
		if i == len(r.cursors) || r.cursors[i].q != q { // queues come in any order
			r.cursors = append(r.cursors, cursor{})
			copy(r.cursors[i+1:], r.cursors[i:])
			r.cursors[i] = cursor{q: q}
		}
		c := &r.cursors[i]
		c.end = uint64(q.head.Load())
		c.look()
		i++
	}
}

// look reads the time of the next record.
func (c *cursor) look() {
	if c.next < c.end {
		c.at = c.q.record(c.next)[recordTime].Load()
	}
}

func (q *queue) record(n uint64) *record { return &q.records[n&uint64(len(q.records)-1)] }

func (r *Recorder) owner(number uint64) owner { return r.parts.owner(number) }

func (r *Recorder) region(number uint64) string { return r.regions.name(number) }

func (r *Recorder) stack(number uint64) (list []Frame) {
	for _, f := range r.skip.Frames(r.stacks.pcs(uint32(number))) {
		list = append(list, Frame{f.Function, f.File, f.Line})
	}
	return list
}

// encode takes the record that c is at.
func (r *Recorder) encode(c *cursor) {
	rec := c.q.record(c.next)
	granted, requested, who := rec[recordGranted].Load(), rec[recordRequested].Load(), rec[recordWho].Load()
	switch granted {
	case lost:
		r.encoder.dropped(c.at, requested)
		c.said += requested
		r.dropped.Add(int64(requested))
	case ends:
		c.of = requested
	default:
		kind := alloctrace.Kind(granted & (1<<kindBits - 1))
		if kind == alloctrace.Reallocating {
			c.of = requested & maxSize
			requested &^= maxSize
		}
		s := shape{
			granted:   granted >> sizeShift,
			requested: requested & maxSize,
			align:     uint8(granted >> kindBits & (1<<alignBits - 1)),
			owner:     who >> whoShift & maxNumber,
			region:    requested >> sizeBits,
		}
		r.encoder.event(c.at, kind, ^rec[recordAddr].Load(), s, who&(1<<whoShift-1), c.of)
		c.of = 0
		r.written.Add(1)
	}
	c.next++
	c.look()
	if r.encoder.full() {
		_ = r.flush() // Close returns it
	}
}

// flush writes what is encoded. If that fails, these events are dropped, and what comes next does not build on what was there.
func (r *Recorder) flush() error {
	batch, events, missing := r.encoder.batch(r.now())
	if batch == nil {
		return nil
	}
	fresh, err := r.out.write(batch)
	if err != nil {
		r.err = err
		r.written.Add(-events)
		r.dropped.Add(events)
		r.encoder.begin()
		if events+missing > 0 {
			r.encoder.dropped(r.encoder.last, uint64(events+missing))
		}
		return err
	}
	if fresh {
		r.encoder.begin()
	}
	return nil
}

// end writes the last events.
func (r *Recorder) end() {
	r.take(math.MaxUint64)
	for _, c := range r.cursors {
		if n := uint64(c.q.dropped.Load()) - c.said; n > 0 {
			r.encoder.dropped(r.now(), n)
			r.dropped.Add(int64(n))
		}
	}
	r.encoder.ended = true
	_ = r.flush() // r.err has it
	if err := r.out.Close(); err != nil {
		r.err = err
	}
}
