package flight

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/hooks/ring"
)

// A record is what happened before its cause.
type record struct {
	cause
	window     time.Duration
	from, to   time.Time     // the first event and the cause
	events     []ring.Record // the last one is that which failed, if one did
	cut        bool          // the ring did not reach back to the window's begin
	suppressed int64         // triggers since the record before

	totals   totals
	byChild  []childTotals // with events, the largest change first
	blocks   []life        // that were allocated, in order
	failures []ring.Record

	proxy    string                   // the rest is of the watched Proxy, if there is one
	stats    *counter.Stats           // nil if there is none
	children map[string]counter.Stats // likewise
	holders  *heapprofile.Report      // nil if there is no Profile
}

// totals are what events add up to.
type totals struct{ allocations, reallocations, frees, failures, in, out int64 }

func (t totals) net() int64 { return t.in - t.out }

type childTotals struct {
	name     string
	from, to time.Time
	totals
}

// A life is a block that was allocated in a record, until it was released or the record ended.
type life struct {
	size, align uintptr
	child       string
	from, to    time.Time
	live        bool // at the end
}

// take makes the record of c. If c has frozen the ring, that ends once it is copied. Who has not must not end it: what
// was before a failure is to be there until its own record is taken.
func (r *Recorder) take(c cause) *record {
	observed := r.ring.Observed()
	events := r.ring.Records()
	cut := observed > uint64(len(events))
	if c.trigger == "failure" {
		r.freezes.Add(-1)
	}
	rec := &record{cause: c, window: r.options.Window, to: time.Unix(0, c.at), suppressed: r.suppressed.Swap(0)}
	if c.trigger == "failure" {
		events = untilFailure(events, &rec.cause)
	}
	begin := rec.to.Add(-rec.window)
	first := slices.IndexFunc(events, func(e ring.Record) bool { return !e.Time.Before(begin) })
	if first >= 0 {
		rec.events = events[first:]
	}
	rec.cut = cut && first == 0
	rec.from = rec.to
	for _, e := range rec.events {
		if e.Time.Before(rec.from) {
			rec.from = e.Time
		}
		if e.Time.After(rec.to) { // while the record was taken
			rec.to = e.Time
		}
	}
	rec.addUp(r.gapsSince(begin))
	if p := r.proxy.Load(); p != nil {
		s := p.Stats()
		rec.proxy, rec.stats, rec.children = p.Name(), &s, p.ChildStats()
	}
	if r.options.Profile != nil {
		report := r.options.Profile.Report()
		rec.holders = &report
	}
	return rec
}

// untilFailure returns the events up to that which failed. The ring may have it no more.
func untilFailure(events []ring.Record, c *cause) []ring.Record {
	for i := len(events) - 1; i >= 0; i-- {
		if events[i].Event == c.event && events[i].Child == c.child && events[i].Err != nil {
			c.at = max(c.at, events[i].Time.UnixNano())
			return events[:i+1]
		}
	}
	return append(events, ring.Record{Event: c.event, Err: c.err, Child: c.child, Time: time.Unix(0, c.at)})
}

// gapsSince returns when the times ended in which events were missed, but for one that ends now. It forgets those before begin.
func (r *Recorder) gapsSince(begin time.Time) []time.Time {
	r.gaps.Lock()
	defer r.gaps.Unlock()
	gaps := slices.DeleteFunc(slices.Clone(r.gapEnds), func(t time.Time) bool { return t.Before(begin) })
	r.gapEnds = gaps
	if missed := r.missed.Load(); missed != r.gapsMissed {
		r.gapsMissed = missed
		r.gapEnds = append(slices.Clone(gaps), time.Unix(0, r.clock.Now()))
	}
	return gaps
}

// addUp makes the totals and the blocks from the events. After a gap an address may be that of another block.
func (rec *record) addUp(gaps []time.Time) {
	children := make(map[string]*childTotals)
	open := make(map[uintptr]int) // which of blocks is live at an address
	type release struct {
		event ring.Record
		block int // -1 if it was allocated before
	}
	releases := make(map[uintptr]release) // the last one at an address, that a failure may take back
	for _, e := range rec.events {
		for len(gaps) > 0 && !e.Time.Before(gaps[0]) {
			gaps = gaps[1:]
			clear(open)
			clear(releases)
		}
		c := children[e.Child]
		if c == nil {
			c = &childTotals{name: e.Child, from: e.Time}
			children[e.Child] = c
		}
		c.to = e.Time
		both := func(f func(*totals)) { f(&rec.totals); f(&c.totals) }
		size := int64(e.Size) // of a block; failures' are not added up
		switch {
		case e.Kind == alloctrace.Allocated, e.Kind == alloctrace.Reallocated:
			both(func(t *totals) {
				t.in += size
				if e.Kind == alloctrace.Allocated {
					t.allocations++
				}
			})
			delete(releases, e.Addr)
			open[e.Addr] = len(rec.blocks)
			rec.blocks = append(rec.blocks, life{e.Size, e.Align, e.Child, e.Time, rec.to, true})
		case e.Kind == alloctrace.Freeing, e.Kind == alloctrace.Reallocating:
			both(func(t *totals) { t.release(e.Kind, size, 1) })
			was := release{e, -1}
			if i, ok := open[e.Addr]; ok && rec.blocks[i].size == e.Size {
				was.block = i
				rec.blocks[i].to, rec.blocks[i].live = e.Time, false
				delete(open, e.Addr)
			}
			releases[e.Addr] = was
		default: // a failure, or one that the ring has forgotten
			both(func(t *totals) { t.failures++ })
			rec.failures = append(rec.failures, e)
			was, ok := releases[e.Addr]
			if e.Addr == 0 || !ok || was.event.Size != e.Size || was.event.Kind.Op() != e.Kind.Op() {
				continue
			}
			both(func(t *totals) { t.release(was.event.Kind, size, -1) })
			delete(releases, e.Addr)
			if was.block >= 0 {
				rec.blocks[was.block].to, rec.blocks[was.block].live = rec.to, true
				open[e.Addr] = was.block
			}
		}
	}
	for _, c := range children {
		rec.byChild = append(rec.byChild, *c)
	}
	slices.SortFunc(rec.byChild, func(a, b childTotals) int {
		return cmp.Or(cmp.Compare(abs(b.net()), abs(a.net())), cmp.Compare(b.in, a.in), cmp.Compare(a.name, b.name))
	})
}

// release adds so many releases of a block of size.
func (t *totals) release(k alloctrace.Kind, size, times int64) {
	t.out += times * size
	if k == alloctrace.Freeing {
		t.frees += times
	} else {
		t.reallocations += times
	}
}

func abs(n int64) int64 { return max(n, -n) }

// holding returns the names of the children that hold memory, that which holds the most first.
func (rec *record) holding() []string {
	names := slices.Collect(maps.Keys(rec.children))
	names = slices.DeleteFunc(names, func(n string) bool { return rec.children[n].LiveBlocks == 0 })
	slices.SortFunc(names, func(a, b string) int {
		return cmp.Or(cmp.Compare(rec.children[b].LiveBytes, rec.children[a].LiveBytes), cmp.Compare(a, b))
	})
	return names
}

// dump makes a record of c and writes it.
func (r *Recorder) dump(c cause) error {
	rec := r.take(c)
	r.records.Add(1)
	r.trace(rec)
	if r.options.Writer == nil {
		return nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	_, err := r.options.Writer.Write(rec.text())
	if err != nil {
		r.writeErrors.Add(1)
		if r.firstErr == nil {
			r.firstErr = err
		}
	}
	return err
}

// demand returns the cause of a record that somebody asks for.
func (r *Recorder) demand(ctx context.Context) cause {
	return cause{trigger: "demand", reason: "somebody asked", at: r.clock.Now(), span: spanContext(ctx)}
}
