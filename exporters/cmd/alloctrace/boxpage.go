package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"time"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/internal/page"
	"github.com/alloctrace/alloctrace/hooks/blackbox"
)

// A boxPage is what the page of a black box shows: what was live and at the peak, and the last events.
type boxPage struct {
	name string
	box  *blackbox.Contents
	book *page.Book
}

func newBoxPage(path string, c *blackbox.Contents) *boxPage {
	return &boxPage{filepath.Base(path), c, page.NewBook()}
}

// What a black box does not have.
const (
	noHistory = "A black box has one moment and the last events: make a recording to see what came before."
	noSites   = "The black box has not said who held memory: pass a heapprofile.Profile in Profile of blackbox.Options."
)

// Answer implements page.Source.
func (p *boxPage) Answer(_ context.Context, q page.Query) (any, error) {
	switch q.What {
	case page.GetPage:
		return p.page(), nil
	case page.GetTables:
		return p.book.Tables(q.Known), nil
	case page.GetSnapshot:
		return p.snapshot(), nil
	case page.GetEvents:
		return p.events(q.N), nil
	}
	return nil, page.NoData(noHistory)
}

// us returns a time since the box was made.
func (p *boxPage) us(t time.Time) int64 { return t.Sub(p.box.Created).Microseconds() }

// end is the last time of which the box knows.
func (p *boxPage) end() time.Time {
	end := p.box.Written
	for _, t := range []time.Time{p.box.Closed, p.lastEvent()} {
		if t.After(end) {
			end = t
		}
	}
	return end
}

func (p *boxPage) lastEvent() (t time.Time) {
	if n := len(p.box.Events); n > 0 {
		t = p.box.Events[n-1].Time
	}
	return t
}

func (p *boxPage) page() *page.Page {
	c := p.box
	tabs := map[string]string{
		"overview": "", "timeline": noHistory, "flame": "", "map": noHistory, "lifetimes": noHistory, "leaks": noHistory, "events": "", "unreachable": noHistory,
	}
	flame := []string{"live"}
	if len(c.Peak.Sites) > 0 {
		flame = append(flame, "peak")
	}
	if len(c.Live.Sites)+len(c.Peak.Sites) == 0 {
		tabs["flame"], flame = noSites, []string{}
	}
	notes := []string{}
	for _, damage := range c.Damage {
		notes = append(notes, "damaged: "+line(damage))
	}
	if c.Closed.IsZero() {
		notes = append(notes, "The process has not closed the black box: it runs still, or has ended in another way.")
	}
	if c.Omitted > 0 {
		notes = append(notes, fmt.Sprintf("The numbers of %d more Proxies and children are left out, for which the file had no room.", c.Omitted))
	}
	return &page.Page{
		ID: fmt.Sprintf("%s-%d-%d", p.name, c.PID, c.Created.UnixNano()), Title: p.name, Mode: page.BlackBox, Of: page.BlackBox, Go: c.Build.Go, Program: c.Build.Package, PID: c.PID,
		Began: c.Created.UTC().Format(time.RFC3339Nano), BeganMS: c.Created.UnixMilli(), NowUS: p.us(p.end()), Rate: int64(c.Live.Rate), Tabs: tabs, Flame: flame, Notes: notes,
	}
}

// snapshot returns the numbers as they were written last.
func (p *boxPage) snapshot() *page.Snapshot {
	s := &page.Snapshot{AtUS: p.us(p.box.Written), Nodes: page.NewNodeColumns(), RSSWhy: "A black box does not know the resident memory of its process."}
	parent := -1
	var total counter.Stats
	for _, of := range p.box.Proxies {
		var node int
		if of.Child == "" {
			parent = p.book.Node(-1, cmp.Or(of.Name, "Proxy"))
			node = parent
			total = total.Add(of.Stats)
		} else {
			node = p.book.Node(parent, of.Child)
		}
		s.Nodes.Add(node, page.StatsOf(of.Stats), -1)
	}
	s.Total, s.Classes = page.StatsOf(total), page.ClassesOf(total)
	rows := newSiteRows()
	for _, of := range p.box.Live.Sites {
		rows.add(p.site(&of), page.SiteStats{Live: of.Bytes, LiveBlocks: of.Blocks, LiveError: of.Error}, 0)
	}
	for _, of := range p.box.Peak.Sites {
		rows.add(p.site(&of), page.SiteStats{}, of.Bytes)
	}
	s.Sites = rows.columns()
	if !p.box.Peak.Time.IsZero() {
		s.Sites.PeakUS = p.us(p.box.Peak.Time)
	}
	s.Known = p.book.Known()
	return s
}

// site returns the number of a site, whose last label says whose it is.
func (p *boxPage) site(s *blackbox.Site) int {
	owner := ""
	for _, l := range s.Labels {
		if l.Key == "allocator" || l.Key == "owner" {
			owner = l.Value
		}
	}
	stack := make([]page.Frame, len(s.Stack))
	for i, f := range s.Stack {
		stack[i] = page.Frame{Function: f.Function, File: f.File, Line: f.Line}
	}
	return p.book.Site(owner, stack, false)
}

// events returns the last n events.
func (p *boxPage) events(n int) *page.Events {
	list := p.box.Events[len(p.box.Events)-min(n, len(p.box.Events)):]
	w := page.NewEventWriter(len(list))
	for _, e := range list {
		row := page.EventRow{Kind: e.Kind, Addr: e.Addr, Size: e.Size, Owner: p.book.Text(e.Child), Site: -1}
		if e.Err != "" {
			row.Err = errors.New(e.Err)
		}
		if !e.Time.IsZero() {
			row.Timed, row.AtNS = true, e.Time.Sub(p.box.Created).Nanoseconds()
		}
		w.Add(row)
	}
	events := w.Events()
	events.AtUS, events.All, events.First = p.us(p.end()), int64(len(p.box.Events)), int64(len(p.box.Events)-len(list))
	events.Known = p.book.Known()
	return events
}
