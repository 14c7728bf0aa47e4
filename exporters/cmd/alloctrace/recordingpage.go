package main

import (
	"cmp"
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/internal/page"
	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/exporters/recording/history"
)

// A recordingPage is what the page of a recording shows. Most of it is found in one pass, in the beginning.
type recordingPage struct {
	name string
	in   *history.Recording
	book *page.Book

	first, last time.Duration
	unknown     history.Unknown
	counts      history.Counts
	peak        history.Amount
	peakAt      time.Duration
	owners      []recordedOwner
	sites       []recordedSite
	live        []history.Block
	lives       map[int]*recordedLives // by number of a site
	classes     *page.Classes
	stacks      bool

	pass sync.Mutex // held while the recording is read again
}

// A recordedOwner is a Proxy or child, without the children of it.
type recordedOwner struct {
	history.Owner
	stats page.Stats
}

// A recordedSite is what is known of a site at the end.
type recordedSite struct {
	*history.Site
	peak int64
}

// recordedLives are how long the blocks of a site live, and who has freed them: of segments of the recording, which repeat stacks.
type recordedLives struct {
	site                  *history.Site // one of those that have the number
	ended, live           page.Histogram
	endedBytes, liveBytes int64
	held                  float64 // byte-milliseconds
	freedBy               map[*recording.Stack]int64
}

// newRecordingPage reads a recording.
func newRecordingPage(path string, in *history.Recording) *recordingPage {
	p := &recordingPage{
		name: filepath.Base(path), in: in, book: page.NewBook(), lives: make(map[int]*recordedLives), stacks: in.Header().Stacks,
	}
	p.first, p.last = in.Span()
	type owner struct{ proxy, child string }
	number := p.siteNumbers()
	stats, slack := make(map[owner]*page.Stats), make(map[owner]int64)
	sizes := make(map[int]*counter.Class)
	h := in.Read(history.Options{
		Observe: func(e recording.Event) {
			of := owner{e.Proxy, e.Child}
			if stats[of] == nil {
				stats[of] = new(page.Stats)
			}
			countEvent(stats[of], e.Event)
		},
		Ended: func(b history.Block) {
			p.ended(b, number(b.Site), sizes)
			if b.Live && b.Requested > 0 {
				slack[owner{b.Site.Proxy, b.Site.Child}] += int64(b.Size - b.Requested)
			}
		},
	})
	p.unknown, p.counts = h.Unknown(), h.Counts()
	p.peak, p.peakAt = h.Peak()
	p.last = max(p.last, h.Now())
	for _, s := range h.Sites() {
		p.sites = append(p.sites, recordedSite{s, h.AtPeak(s).Bytes})
	}
	slices.SortStableFunc(p.sites, func(a, b recordedSite) int {
		return cmp.Or(cmp.Compare(b.Live.Bytes, a.Live.Bytes), cmp.Compare(b.Allocated.Bytes, a.Allocated.Bytes))
	})
	for _, o := range h.Owners() {
		s := stats[owner{o.Proxy, o.Child}]
		if s == nil {
			s = new(page.Stats)
		}
		s.Slack = slack[owner{o.Proxy, o.Child}]
		s.Live, s.LiveBlocks, s.Peak, s.Allocated, s.Freed = o.Live.Bytes, o.Live.Blocks, o.Peak.Bytes, o.Allocated.Bytes, o.Allocated.Bytes-o.Live.Bytes
		p.owners = append(p.owners, recordedOwner{o, *s})
	}
	p.classes = sizeClasses(sizes)
	slices.SortStableFunc(p.live, func(a, b history.Block) int { return cmp.Compare(a.Acquired, b.Acquired) })
	return p
}

// ended counts a block, of which it is known what has become.
func (p *recordingPage) ended(b history.Block, site int, sizes map[int]*counter.Class) {
	class := sizeClass(uint64(b.Size))
	if sizes[class] == nil {
		sizes[class] = new(counter.Class)
	}
	sizes[class].Allocated++
	if b.Older || b.Lost {
		sizes[class].Freed++
		return // how long it has lived is not known
	}
	l := p.lives[site]
	if l == nil {
		l = &recordedLives{site: b.Site, freedBy: make(map[*recording.Stack]int64)}
		p.lives[site] = l
	}
	if b.Live {
		p.live = append(p.live, b)
		l.live.Add(b.Life(), 1)
		l.liveBytes += int64(b.Size)
		return
	}
	sizes[class].Freed++
	l.ended.Add(b.Life(), 1)
	l.endedBytes += int64(b.Size)
	if b.ReleasedBy != nil {
		l.freedBy[b.ReleasedBy]++
	}
	l.held += float64(b.Size) * float64(b.Life()) / float64(time.Millisecond)
}

// Answer implements page.Source.
func (p *recordingPage) Answer(_ context.Context, q page.Query) (any, error) {
	switch q.What {
	case page.GetPage:
		return p.page(), nil
	case page.GetTables:
		return p.book.Tables(q.Known), nil
	case page.GetSnapshot:
		if q.AtUS != page.Latest && momentOf(q.AtUS) < p.last {
			return p.snapshotAt(momentOf(q.AtUS)), nil
		}
		return p.snapshot(), nil
	case page.GetBlocks:
		return p.blocks(q.N), nil
	case page.GetMap:
		return p.memoryMap(), nil
	case page.GetEvents:
		return p.events(q.N), nil
	case page.GetTimeline:
		return p.timeline(q.By, q.Steps)
	case page.GetBetween:
		return p.between(q.FromUS, q.ToUS), nil
	case page.GetLifetimes:
		return p.lifetimes(), nil
	case page.GetLeaks:
		return p.leaks(), nil
	}
	return nil, page.NoData("this is of a recording: there is no program that could do that")
}

func momentOf(us int64) time.Duration { return time.Duration(us) * time.Microsecond }

func (p *recordingPage) page() *page.Page {
	h := p.in.Header()
	notes := unknowns(&p.unknown)
	if notes == nil {
		notes = []string{}
	}
	tabs := map[string]string{"overview": "", "timeline": "", "flame": "", "map": "", "lifetimes": "", "leaks": "", "events": "",
		"unreachable": "This is of a recording: the program that could be asked is not there."}
	if !p.stacks {
		tabs["flame"] = "The recording has no stacks: leave NoStacks of recording.Options unset."
	}
	return &page.Page{
		ID: fmt.Sprintf("%s-%d-%d", p.name, h.PID, h.Began.UnixNano()), Title: p.name, Mode: page.Recording, Of: page.Recording, Go: h.Go, Program: h.Program, PID: h.PID,
		Began: h.Began.UTC().Format(time.RFC3339Nano), BeganMS: h.Began.UnixMilli(), NowUS: p.last.Microseconds(), FirstUS: p.first.Microseconds(),
		Rate: 1, Tabs: tabs, Flame: []string{"live", "allocated", "peak", "lifetime"}, Notes: notes,
	}
}

// site returns the number of a site. Sites of two Proxies that are the same but for these are one, as those of a live page are.
func (p *recordingPage) site(s *history.Site) int {
	return p.book.Site(s.Child, framesOfCalls(s.Stack), false)
}

// siteNumbers returns a function that finds the numbers of the sites of many blocks or events.
func (p *recordingPage) siteNumbers() func(s *history.Site) int {
	known := make(map[*history.Site]int)
	return func(s *history.Site) int {
		n, ok := known[s]
		if !ok {
			n = p.site(s)
			known[s] = n
		}
		return n
	}
}

func framesOfCalls(stack []recording.Frame) []page.Frame { return pageFrames(profileFrames(stack)) }

// snapshot returns the numbers of the end.
func (p *recordingPage) snapshot() *page.Snapshot {
	s := &page.Snapshot{AtUS: p.last.Microseconds(), Classes: p.classes, RSSWhy: "A recording does not know the resident memory of its process."}
	s.Nodes, s.Total = p.nodes(p.owners, p.peak.Bytes)
	lifetimes := make(map[int]float64)
	rows := newSiteRows()
	for _, of := range p.sites {
		n := p.site(of.Site)
		rows.add(n, siteStats(of.Live, of.Allocated), of.peak)
		if l := p.lives[n]; l != nil {
			lifetimes[n] = l.held
		}
	}
	s.Sites = rows.columns()
	s.Sites.PeakUS = p.peakAt.Microseconds()
	for _, n := range s.Sites.Site {
		s.Sites.Lifetime = append(s.Sites.Lifetime, int64(min(lifetimes[n], page.MaxNumber)))
	}
	if span := p.last - p.first; span > 0 {
		s.RateUS = span.Microseconds()
		s.AllocatedRate, s.FreedRate = float64(s.Total.Allocated)/span.Seconds(), float64(s.Total.Freed)/span.Seconds()
		s.AllocationRate = float64(s.Total.Allocations+s.Total.Reallocations) / span.Seconds()
	}
	s.Known = p.book.Known()
	return s
}

// snapshotAt returns the numbers of a moment.
func (p *recordingPage) snapshotAt(at time.Duration) *page.Snapshot {
	s := &page.Snapshot{AtUS: at.Microseconds(), RSSWhy: "A recording does not know the resident memory of its process."}
	reached := func(_ int, h *history.History) {
		var owners []recordedOwner
		for _, o := range h.Owners() {
			owners = append(owners, recordedOwner{o, page.Stats{
				Live: o.Live.Bytes, LiveBlocks: o.Live.Blocks, Peak: o.Peak.Bytes, Allocated: o.Allocated.Bytes, Freed: o.Allocated.Bytes - o.Live.Bytes,
			}})
		}
		peak, peakAt := h.Peak()
		s.Nodes, s.Total = p.nodes(owners, peak.Bytes)
		rows := newSiteRows()
		for _, of := range h.Sites() {
			rows.add(p.site(of), siteStats(of.Live, of.Allocated), h.AtPeak(of).Bytes)
		}
		s.Sites = rows.columns()
		s.Sites.PeakUS = peakAt.Microseconds()
		c := h.Counts()
		s.Total.Allocations, s.Total.Reallocations, s.Total.Frees = c.Allocations, c.Reallocations, c.Frees
		s.Total.FailedAllocations, s.Total.FailedReallocations, s.Total.FailedFrees = c.AllocateFailures, c.ReallocateFailures, c.FreeFailures
	}
	p.read(history.Options{Moments: []time.Duration{at}, Reached: reached})
	s.Known = p.book.Known()
	return s
}

// read reads the recording once more. One such pass is under way at a time.
func (p *recordingPage) read(o history.Options) *history.History {
	p.pass.Lock()
	defer p.pass.Unlock()
	return p.in.Read(o)
}
