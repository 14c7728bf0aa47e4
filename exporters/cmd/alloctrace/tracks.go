package main

import (
	"fmt"
	"time"

	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/exporters/recording/history"
)

// A viewer is a file for a program that shows traces.
type viewer interface {
	// counter says what is live of a series from a moment on. A call may be late by a step.
	counter(at time.Duration, s *series, bytes int64)
	// instant says what has failed, or where events are missing: e is that, or nil.
	instant(at time.Duration, name string, e *recording.Event)
}

// A series is what is live of all or of a group. It is shown once a step.
type series struct {
	name   string
	number int // 0 is all
	step   int64
	live   int64
	most   int64 // of the step
	shown  int64
}

// mostInstants is how many events that fail or were dropped a viewer gets.
const mostInstants = 10_000

// Tracks give a viewer what happens in a recording, as it happens. Their memory is that of the groups.
type tracks struct {
	of       *export
	to       viewer
	begin    time.Duration
	step     time.Duration
	list     []*series
	groups   map[any]*series
	names    map[string]int
	instants int64
}

func newTracks(e *export, in *history.Recording, to viewer) *tracks {
	first, last := in.Span()
	t := &tracks{of: e, to: to, begin: first, step: (last-first)/time.Duration(e.steps) + 1, groups: make(map[any]*series), names: make(map[string]int)}
	t.add(nil, "live bytes")
	return t
}

// options returns those that read what is shown.
func (t *tracks) options() history.Options {
	o := t.of.options()
	o.Observe = t.observe
	o.Changed = func(at time.Duration, s *history.Site, _ string, by history.Amount) {
		t.change(t.list[0], at, by.Bytes)
		t.change(t.group(s), at, by.Bytes)
	}
	return o
}

func (t *tracks) observe(e recording.Event) {
	name := e.Kind.String()
	switch {
	case e.Dropped > 0:
		name = "events dropped"
	case !e.Kind.Failed() || !t.of.selects(&e, stackOf(&e)):
		return
	}
	if t.instants++; t.instants <= mostInstants {
		t.to.instant(e.At, name, &e)
	}
}

// group returns the series of a site's group.
func (t *tracks) group(s *history.Site) *series {
	var key any = [2]string{s.Proxy, s.Child}
	if t.of.by == "site" {
		key = s
	}
	if g := t.groups[key]; g != nil {
		return g
	}
	name := ownerName(s.Proxy, s.Child)
	if t.of.by == "site" {
		name += ": " + t.of.stackLine(s.Stack)
	}
	return t.add(key, name)
}

// add adds a series, whose name no other has.
func (t *tracks) add(key any, name string) *series {
	if t.names[name]++; t.names[name] > 1 {
		name = fmt.Sprintf("%s #%d", name, t.names[name])
	}
	s := &series{name: name, number: len(t.list)}
	t.list = append(t.list, s)
	t.groups[key] = s
	t.to.counter(t.begin, s, 0)
	return s
}

func (t *tracks) change(s *series, at time.Duration, by int64) {
	if step := int64(max(0, at-t.begin) / t.step); step != s.step {
		t.show(s, t.begin+time.Duration(s.step)*t.step, s.most)
		if step > s.step+1 {
			t.show(s, t.begin+time.Duration(s.step+1)*t.step, s.live)
		}
		s.step, s.most = step, s.live
	}
	s.live += by
	s.most = max(s.most, s.live)
}

func (t *tracks) show(s *series, at time.Duration, bytes int64) {
	if bytes != s.shown {
		s.shown = bytes
		t.to.counter(at, s, bytes)
	}
}

// end shows what is live at the end.
func (t *tracks) end(at time.Duration) {
	for _, s := range t.list {
		begin := t.begin + time.Duration(s.step)*t.step
		t.show(s, begin, s.most)
		t.show(s, max(at, begin), s.live)
	}
	if more := t.instants - mostInstants; more > 0 {
		t.to.instant(at, number(more, "more failure or gap"), nil)
	}
}
