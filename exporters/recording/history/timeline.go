package history

import (
	"fmt"
	"slices"
	"time"
)

// A Group is what a [Timeline] tells apart: a child, a region, or a site. Fields that say nothing of it are empty.
type Group struct {
	Proxy  string `json:"proxy,omitempty"`
	Child  string `json:"child,omitempty"`
	Region string `json:"region,omitempty"`
	Site   *Site  `json:"site,omitempty"`

	Peak   int64   `json:"peak"`   // the most live bytes
	Live   int64   `json:"live"`   // bytes at the end
	Values []int64 `json:"values"` // the most live bytes of each step
}

// A Timeline has the most live bytes of each step of time.
type Timeline struct {
	Begin   time.Duration `json:"begin_ns"`
	Step    time.Duration `json:"step_ns"`
	Total   Group         `json:"total"` // whose peak may be less than the sum of the groups' peaks
	Groups  []Group       `json:"groups,omitempty"`
	Unknown Unknown       `json:"unknown"`
}

type groupKey struct {
	proxy, child, region string
	site                 *Site
}

// Groupings are what a Timeline can be by; "" has a total alone.
var groupings = map[string]func(s *Site, region string) groupKey{
	"":       nil,
	"proxy":  func(s *Site, _ string) groupKey { return groupKey{proxy: s.Proxy} },
	"child":  func(s *Site, _ string) groupKey { return groupKey{proxy: s.Proxy, child: s.Child} },
	"region": func(_ *Site, region string) groupKey { return groupKey{region: region} },
	"site":   func(s *Site, _ string) groupKey { return groupKey{site: s} },
}

// NewTimeline reads a recording, in so many steps at most, by "proxy", "child", "region" or "site", or "" for the total alone. The
// groups with the largest peak come first. A recording that is damaged is read twice. Changed of o is not used.
func NewTimeline(r *Recording, by string, steps int, o Options) (*Timeline, error) {
	group, ok := groupings[by]
	if !ok || steps < 1 {
		return nil, fmt.Errorf(`history: NewTimeline(%q, %d): use proxy, child, region, site or "", and a step or more`, by, steps)
	}
	var t *Timeline
	var total *series
	var groups map[groupKey]*series
	var order []*series
	h := r.readSpan(func(first, last time.Duration) Options {
		t = &Timeline{Begin: first, Step: (last-first)/time.Duration(steps) + 1}
		n := int((last-first)/t.Step) + 1
		total, groups, order = newSeries(n), make(map[groupKey]*series), nil
		o.Changed = func(at time.Duration, s *Site, region string, by Amount) {
			step := min(int(max(0, at-first)/t.Step), n-1)
			total.change(step, by.Bytes)
			if group == nil {
				return
			}
			key := group(s, region)
			g := groups[key]
			if g == nil {
				g = newSeries(n)
				g.Proxy, g.Child, g.Region, g.Site = key.proxy, key.child, key.region, key.site
				groups[key] = g
				order = append(order, g)
			}
			g.change(step, by.Bytes)
		}
		return o
	})
	total.end()
	t.Total, t.Unknown = total.Group, h.Unknown()
	for _, g := range order {
		g.end()
		t.Groups = append(t.Groups, g.Group)
	}
	slices.SortStableFunc(t.Groups, func(a, b Group) int { return sign(b.Peak - a.Peak) })
	return t, nil
}

// A series is a Group step by step.
type series struct {
	Group
	step int
}

func newSeries(n int) *series { return &series{Group: Group{Values: make([]int64, n)}} }

func (s *series) change(step int, by int64) {
	s.reach(step)
	s.Live += by
	s.Values[step] = max(s.Values[step], s.Live)
	s.Peak = max(s.Peak, s.Live)
}

func (s *series) reach(step int) {
	for s.step < step {
		s.step++
		s.Values[s.step] = s.Live
	}
}

func (s *series) end() { s.reach(len(s.Values) - 1) }
