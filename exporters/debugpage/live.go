package debugpage

import (
	"cmp"
	"context"
	"crypto/rand"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"strconv"
	"sync"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/internal/page"
	"github.com/alloctrace/alloctrace/exporters/rss"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
	"github.com/alloctrace/alloctrace/internal/sources"
	"github.com/alloctrace/alloctrace/internal/text"
)

// live is the Source of this process.
type live struct {
	o       Options
	proxies []*alloctrace.Proxy
	names   []string // of them, all different
	stacked map[*alloctrace.Proxy][]int
	book    *page.Book
	id      string
	began   time.Time
	lives   bool // the Profile knows how long blocks live

	pinned    part[pinnedBySite]
	lifetimes part[[]heapprofile.Lifetime]
	resident  part[residence]
	searching sync.Mutex // held during a search for unreachable blocks

	mu    sync.Mutex
	sites map[sampleKey]int // of the samples that were seen
	ticks [2]reading        // the last two, of which the second is the newer; empty if nobody looks
	first int64             // when the first tick was
	mark  *marked           // nil if nobody has looked
}

// A reading is the total numbers at a moment.
type reading struct {
	at    time.Time
	total page.Stats
}

// residence is what is known of the resident memory.
type residence struct {
	report *rss.Report
	why    string
}

func newLive(o Options, of []*alloctrace.Proxy) *live {
	of = distinct(of)
	names, seen := make([]string, len(of)), make(map[string]bool)
	for i, p := range of {
		first := cmp.Or(text.Name(p.Name()), "Proxy")
		names[i] = first
		for n := 2; seen[names[i]]; n++ {
			names[i] = first + "#" + strconv.Itoa(n)
		}
		seen[names[i]] = true
	}
	l := &live{o: o, proxies: of, names: names, stacked: stacked(of), book: page.NewBook(), id: rand.Text(), began: time.Now(), sites: make(map[sampleKey]int)}
	l.lives = o.Profile != nil && o.Profile.Lifetimes() != nil // which costs little, as long as there are few blocks
	return l
}

var _ page.Ticker = (*live)(nil)

// us returns a time as answers have it.
func (l *live) us(t time.Time) int64 { return t.Sub(l.began).Microseconds() }

func (l *live) now() int64 { return l.us(time.Now()) }

func (l *live) at(us int64) time.Time {
	// A Duration has room for 292 years.
	return l.began.Add(time.Duration(min(max(us, -math.MaxInt64/1000), math.MaxInt64/1000)) * time.Microsecond)
}

// Answer implements page.Source.
func (l *live) Answer(ctx context.Context, q page.Query) (any, error) {
	switch q.What {
	case page.GetPage:
		return l.page(), nil
	case page.GetTables:
		return l.book.Tables(q.Known), nil
	case page.GetSnapshot:
		if q.AtUS != page.Latest {
			return nil, &page.Failure{Status: 400, Text: "api/snapshot: at: this page knows now alone: leave it out"}
		}
		return l.snapshot(), nil
	case page.GetMap:
		return l.memoryMap()
	case page.GetEvents:
		return l.events(q.N)
	case page.GetTimeline:
		return nil, page.NoData("the browser makes the timeline of what it has seen: leave the page open")
	}
	if l.o.Profile == nil {
		return nil, page.NoData(noProfile)
	}
	switch q.What {
	case page.GetBlocks:
		return l.blocks(q.N), nil
	case page.GetBetween:
		return l.between(q.FromUS, q.ToUS), nil
	case page.GetLifetimes:
		return l.lived()
	case page.GetLeaks:
		return l.leaks(), nil
	case page.PostMark:
		l.setMark(newMarked(l))
		return l.leaks(), nil
	case page.PostUnreachable:
		return l.unreachable(ctx)
	}
	panic("debugpage: an answer to api/" + q.What + " is missing")
}

// What to switch on.
const (
	noProfile     = "There is no heap profile: add heapprofile.New(heapprofile.Options{}) to the hooks of the Proxy."
	noLifetimes   = "The heap profile does not know how long blocks live: set Lifetimes in heapprofile.Options."
	noSpans       = "There is no Pool and no Slab below the Proxies whose memory could be shown."
	noRing        = "There is no ring of events: add ring.New(1<<16, ring.NewCoarseClock(time.Millisecond)) to the hooks of the Proxy."
	noUnreachable = "Finding unreachable blocks stops the program for a heap dump: set Unreachable in debugpage.Options to have a button for it."
)

// page says what there is.
func (l *live) page() *page.Page {
	p := &page.Page{
		ID: l.id, Title: l.o.Title, Mode: page.Live, Of: page.Live, Go: runtime.Version(), PID: os.Getpid(),
		Began: l.began.UTC().Format(time.RFC3339Nano), BeganMS: l.began.UnixMilli(), NowUS: l.now(),
		Tabs:  map[string]string{"overview": "", "timeline": "", "flame": "", "map": "", "lifetimes": "", "leaks": "", "events": "", "unreachable": ""},
		Flame: []string{}, Notes: []string{},
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Path != "command-line-arguments" { // as go run calls files
		p.Program = info.Path
	}
	p.Title = cmp.Or(p.Title, filepath.Base(cmp.Or(p.Program, os.Args[0])))
	l.mu.Lock()
	if p.FirstUS = p.NowUS; l.first != 0 {
		p.FirstUS = l.first
	}
	l.mu.Unlock()
	spanners := len(l.spanners()) > 0
	if !spanners {
		p.Tabs["map"] = noSpans
	}
	if l.o.Ring == nil {
		p.Tabs["events"] = noRing
	}
	if l.o.Profile == nil {
		for _, tab := range []string{"flame", "lifetimes", "leaks", "unreachable"} {
			p.Tabs[tab] = noProfile
		}
		return p
	}
	p.Rate = int64(l.o.Profile.Rate())
	p.Flame = append(p.Flame, "live", "allocated")
	if l.o.Profile.Peak() != nil {
		p.Flame = append(p.Flame, "peak")
	}
	if spanners {
		p.Flame = append(p.Flame, "pinned")
	}
	if l.lives {
		p.Flame = append(p.Flame, "lifetime")
	} else {
		p.Tabs["lifetimes"] = noLifetimes
	}
	if !l.o.Unreachable {
		p.Tabs["unreachable"] = noUnreachable
	}
	return p
}

// Watched implements page.Ticker.
func (l *live) Watched(is bool) {
	l.mu.Lock()
	l.ticks = [2]reading{}
	l.mu.Unlock()
	l.pinned.keep(is)
	l.lifetimes.keep(is)
	l.resident.keep(is)
	if is && l.o.Profile != nil {
		l.marking()
	}
}

// Tick implements page.Ticker.
func (l *live) Tick() *page.Tick {
	now := time.Now()
	t := &page.Tick{
		ID: l.id, AtUS: l.us(now), Whole: true,
		Node: []int{}, Site: []int{}, SiteLive: []int64{}, SiteAllocated: []int64{},
	}
	for _, column := range t.NodeColumns() {
		*column = []int64{}
	}
	nodes, sum := l.nodes()
	t.Total = page.StatsOf(sum)
	for _, n := range nodes {
		t.Node = append(t.Node, n.node)
		t.NodeLive = append(t.NodeLive, n.stats.LiveBytes)
		t.NodeAllocated = append(t.NodeAllocated, n.stats.AllocatedBytes)
		t.NodeBlocks = append(t.NodeBlocks, n.stats.LiveBlocks)
		t.NodePeak = append(t.NodePeak, n.stats.PeakBytes)
		t.NodeFailures = append(t.NodeFailures, n.stats.Failures())
	}
	for _, s := range l.siteSums() {
		t.Site = append(t.Site, s.site)
		t.SiteLive = append(t.SiteLive, s.live)
		t.SiteAllocated = append(t.SiteAllocated, s.allocated)
	}
	t.Known = l.book.Known()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ticks[0], l.ticks[1] = l.ticks[1], reading{now, t.Total}
	if l.first == 0 {
		l.first = t.AtUS
	}
	return t
}

// snapshot returns the numbers of now.
func (l *live) snapshot() *page.Snapshot {
	nodes, sum := l.nodes()
	s := &page.Snapshot{AtUS: l.now(), Total: page.StatsOf(sum), Nodes: page.NewNodeColumns(), Classes: page.ClassesOf(sum)}
	for _, n := range nodes {
		s.Nodes.Add(n.node, page.StatsOf(n.stats), n.limit())
	}
	s.Sites = l.siteColumns()
	res := l.resident.get(l.readRSS)
	s.RSS, s.RSSWhy = res.report, res.why
	l.mu.Lock()
	if a, b := l.ticks[0], l.ticks[1]; !a.at.IsZero() {
		passed := b.at.Sub(a.at)
		s.RateUS = passed.Microseconds()
		per := func(from, to int64) float64 { return float64(to-from) / passed.Seconds() }
		s.AllocatedRate, s.FreedRate = per(a.total.Allocated, b.total.Allocated), per(a.total.Freed, b.total.Freed)
		s.AllocationRate = per(a.total.Allocations+a.total.Reallocations, b.total.Allocations+b.total.Reallocations)
	}
	l.mu.Unlock()
	s.Known = l.book.Known()
	return s
}

// readRSS explains the resident memory.
func (l *live) readRSS() (r residence) {
	of := make([]counter.Source, len(l.proxies))
	for i, p := range l.proxies {
		of[i] = p
	}
	err := sources.Try(func() error {
		report, err := rss.Read(of...)
		r.report = &report
		return err
	})
	if err != nil {
		return residence{nil, err.Error()}
	}
	return r
}

// allocators returns the Proxies as such.
func (l *live) allocators() []blockalloc.Allocator {
	list := make([]blockalloc.Allocator, len(l.proxies))
	for i, p := range l.proxies {
		list[i] = p
	}
	return list
}

// A part is something that several answers have, and that costs more than one of them should each time. It is made anew as an answer is.
type part[T any] struct {
	mu    sync.Mutex
	value T
	made  time.Time // zero if there is none
	took  time.Duration
	first bool
	kept  bool
}

// get returns the value, which others wait for while it is made.
func (p *part[T]) get(produce func() T) T {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.made.IsZero() && time.Since(p.made) < newFor(p.took, p.first) {
		return p.value
	}
	p.first = p.made.IsZero()
	began := time.Now()
	value := produce()
	if p.kept {
		p.value, p.made = value, time.Now()
		p.took = p.made.Sub(began)
	}
	return value
}

// keep says whether the value is kept.
func (p *part[T]) keep(is bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	var none T
	p.value, p.made, p.kept = none, time.Time{}, is
}
