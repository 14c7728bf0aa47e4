package ring

import (
	"errors"
	"time"

	"github.com/alloctrace/alloctrace"
)

// A Record is an event that was kept in a [Ring].
type Record struct {
	alloctrace.Event
	Err   error     // with failures, else nil
	Child string    // the name of the child Proxy, "" if it is of none
	Time  time.Time // zero if the Ring has no clock
}

// ErrForgotten is the error of an event that more than 64 others with an error have
// followed. All else but its address is forgotten too, and its Kind is 0.
var ErrForgotten = errors.New("ring: the Ring has kept this event longer than its error")

// Records returns the events that the Ring has, in order and without gaps: it leaves out events
// that came before one that another processor has overwritten. It may be called while events
// are observed. Those that are being written or overwritten meanwhile are left out too.
func (r *Ring) Records() []Record {
	var cursors []cursor
	var lost bool
	var since int32 // the last epoch that may have begun with an event that was overwritten
	for _, c := range r.cursors() {
		head := c.end
		if c.n = head - min(head, r.size); !c.next() {
			continue
		}
		cursors = append(cursors, c)
		if head > r.size && (!lost || c.epoch()-since > 0) {
			lost, since = true, c.epoch()
		}
	}
	var most uint64 // of records
	for _, c := range cursors {
		most += c.end - c.n + 1
	}
	list := make([]Record, 0, most)
	for len(cursors) > 0 {
		i := earliest(cursors)
		if c := &cursors[i]; !lost || c.epoch()-since >= 0 {
			list = append(list, r.record(c))
		}
		if !cursors[i].next() {
			cursors = append(cursors[:i], cursors[i+1:]...)
		}
	}
	return list
}

// record returns the record that c is at.
func (r *Ring) record(c *cursor) (rec Record) {
	addr, rest := uintptr(^c.words[recordAddr]), c.words[recordRest]
	if rest&(1<<kindBits-1) == overflowed {
		rec = r.overflow.find(rest, addr)
	} else {
		var child uint64
		rec.Event, child = unpacked(addr, rest)
		rec.Child = r.children.name(child)
	}
	if r.clock != nil {
		rec.Time = time.Unix(0, int64(c.words[recordTime]))
	}
	return rec
}

// A cursor goes through the records of a shard.
type cursor struct {
	s      *ringShard
	n, end uint64 // the number of the record that it is at, and of the last one
	cut    int32  // the epoch before which it ends
	words  [len(record{})]uint64
}

// cursors returns a cursor for each shard there is, at its begin. They end so that, if an event is
// there, all that its goroutine wrote before it is there too: before a new epoch, unless there is
// but one shard.
func (r *Ring) cursors() []cursor {
	one := cursorsOf(r.all(), int32(r.epoch.Load())+1<<30)
	if len(r.all()) < 2 { // after the heads were read: nothing before them can be in a shard that is made later
		return one
	}
	for {
		if epoch := r.epoch.Load(); r.renew(epoch) {
			return cursorsOf(r.all(), int32(epoch+1))
		}
	}
}

func cursorsOf(shards []*ringShard, cut int32) []cursor {
	list := make([]cursor, len(shards))
	for i, s := range shards {
		list[i] = cursor{s: s, end: uint64(s.head.Load()), cut: cut}
	}
	return list
}

// next goes to the next record that is there whole.
func (c *cursor) next() bool {
	for c.n < c.end {
		c.n++
		if c.read() {
			return !c.after()
		}
	}
	return false
}

// after reports whether the record is of the epoch before which c ends, or of a later one.
func (c *cursor) after() bool { return c.epoch()-c.cut >= 0 }

// read reads the record, and reports whether it is there whole: see ringShard.
func (c *cursor) read() bool {
	place := c.s.place(c.n)
	for i := len(place) - 1; i >= 0; i-- {
		c.words[i] = place[i].Load()
	}
	return c.words[recordNumber]&epochNumber == c.n&epochNumber && !c.s.overwritten(c.n)
}

func (c *cursor) epoch() int32 { return int32(c.words[recordNumber] >> epochShift) }

// before reports whether c's record comes before d's, of another shard.
func (c *cursor) before(d *cursor) bool {
	if epochs := c.epoch() - d.epoch(); epochs != 0 {
		return epochs < 0
	}
	return c.words[recordTime] < d.words[recordTime]
}

// earliest returns which of cursors has the record that comes first.
func earliest(cursors []cursor) int {
	first := 0
	for i := range cursors {
		if cursors[i].before(&cursors[first]) {
			first = i
		}
	}
	return first
}
