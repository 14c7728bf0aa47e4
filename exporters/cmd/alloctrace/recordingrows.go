package main

import (
	"cmp"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/internal/page"
	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/exporters/recording/history"
)

// siteRows are rows of sites that may come several times.
type siteRows struct {
	rows map[int]int
	list []siteRow
}

type siteRow struct {
	site     int
	stats    page.SiteStats
	peak     int64
	variance float64 // of live
}

func newSiteRows() *siteRows { return &siteRows{rows: make(map[int]int)} }

// add adds to the row of a site. Errors are those of independent estimates.
func (r *siteRows) add(site int, s page.SiteStats, peak int64) {
	i, ok := r.rows[site]
	if !ok {
		i = len(r.list)
		r.rows[site], r.list = i, append(r.list, siteRow{site: site})
	}
	row := &r.list[i]
	row.stats.Live += s.Live
	row.stats.LiveBlocks += s.LiveBlocks
	row.stats.Allocated += s.Allocated
	row.stats.AllocatedBlocks += s.AllocatedBlocks
	row.peak += peak
	row.variance += float64(s.LiveError) * float64(s.LiveError)
}

// columns returns the rows, the most live bytes first.
func (r *siteRows) columns() page.SiteColumns {
	slices.SortStableFunc(r.list, func(a, b siteRow) int {
		return cmp.Or(cmp.Compare(b.stats.Live, a.stats.Live), cmp.Compare(b.stats.Allocated, a.stats.Allocated), cmp.Compare(b.peak, a.peak))
	})
	c := page.NewSiteColumns()
	c.Peak = []int64{}
	for i := range r.list {
		row := &r.list[i]
		row.stats.LiveError = int64(math.Round(math.Sqrt(row.variance)))
		c.Add(row.site, row.stats)
		c.Peak = append(c.Peak, row.peak)
	}
	return c
}

// siteStats returns the numbers of a site that a recording has.
func siteStats(live, allocated history.Amount) page.SiteStats {
	return page.SiteStats{Live: live.Bytes, LiveBlocks: live.Blocks, Allocated: allocated.Bytes, AllocatedBlocks: allocated.Blocks}
}

// nodes returns the numbers of Proxies, those of their children included, and the sum of all, whose peak is known. That of one of several Proxies
// is a sum, which may not have been reached.
func (p *recordingPage) nodes(owners []recordedOwner, peak int64) (page.NodeColumns, page.Stats) {
	var total page.Stats
	var proxies []string
	sums := make(map[string]*page.Stats)
	for _, o := range owners {
		if sums[o.Proxy] == nil {
			sums[o.Proxy] = new(page.Stats)
			proxies = append(proxies, o.Proxy)
		}
		addStats(sums[o.Proxy], o.stats)
		addStats(&total, o.stats)
	}
	if len(proxies) == 1 {
		sums[proxies[0]].Peak, sums[proxies[0]].PeakBound = peak, 0
	}
	total.Peak, total.PeakBound = peak, 0
	c := page.NewNodeColumns()
	for _, name := range proxies {
		node := p.book.Node(-1, cmp.Or(name, "Proxy"))
		c.Add(node, *sums[name], -1)
		for _, o := range owners {
			if o.Proxy == name && o.Child != "" {
				c.Add(p.book.Node(node, o.Child), o.stats, -1)
			}
		}
	}
	return c, total
}

// addStats adds the numbers of another, whose peak need not have been at the same time.
func addStats(to *page.Stats, s page.Stats) {
	to.PeakBound += min(to.Peak, s.Peak)
	for _, n := range []struct {
		to *int64
		by int64
	}{
		{&to.Live, s.Live}, {&to.LiveBlocks, s.LiveBlocks}, {&to.Slack, s.Slack}, {&to.Peak, s.Peak}, {&to.Allocated, s.Allocated}, {&to.Freed, s.Freed},
		{&to.Allocations, s.Allocations}, {&to.Reallocations, s.Reallocations}, {&to.Frees, s.Frees},
		{&to.FailedAllocations, s.FailedAllocations}, {&to.FailedReallocations, s.FailedReallocations}, {&to.FailedFrees, s.FailedFrees},
	} {
		*n.to += n.by
	}
}

// countEvent counts an event. A release is delivered before it is tried, and again if it failed.
func countEvent(s *page.Stats, e alloctrace.Event) {
	switch e.Kind {
	case alloctrace.Allocated:
		s.Allocations++
	case alloctrace.Reallocating:
		s.Reallocations++
	case alloctrace.Freeing:
		s.Frees++
	case alloctrace.AllocateFailed:
		s.FailedAllocations++
	case alloctrace.ReallocateFailed:
		s.FailedReallocations++
		if e.Addr != 0 {
			s.Reallocations = max(0, s.Reallocations-1)
		}
	case alloctrace.FreeFailed:
		s.Frees = max(0, s.Frees-1)
		s.FailedFrees++
	}
}

// sizeClass is the power of two up to which a size is.
func sizeClass(size uint64) int {
	if size <= 1 {
		return 0
	}
	return bits.Len64(size - 1)
}

func sizeClasses(sizes map[int]*counter.Class) *page.Classes {
	c := &page.Classes{Size: []int64{}, Live: []int64{}, Allocations: []int64{}}
	for i := range 63 {
		if s := sizes[i]; s != nil {
			c.Size, c.Live, c.Allocations = append(c.Size, 1<<i), append(c.Live, s.Live()), append(c.Allocations, s.Allocated)
		}
	}
	return c
}

// blocks returns n blocks that are live at the end, at most.
func (p *recordingPage) blocks(n int) *page.Blocks {
	b := page.NewBlocks(min(n, len(p.live)))
	b.AtUS, b.All = p.last.Microseconds(), int64(len(p.live))
	list := p.live
	if len(list) > n {
		list = slices.Clone(list)
		slices.SortStableFunc(list, func(a, b history.Block) int { return cmp.Compare(b.Size, a.Size) })
		list = list[:n]
		slices.SortStableFunc(list, func(a, b history.Block) int { return cmp.Compare(a.Acquired, b.Acquired) })
	}
	if len(list) > 0 {
		b.AddrMin = int64(slices.MinFunc(list, byAddr).Addr)
	}
	number := p.siteNumbers()
	for i := range list {
		of := &list[i]
		b.Addr, b.Size = append(b.Addr, int64(of.Addr)-b.AddrMin), append(b.Size, int64(of.Size))
		b.AllocatedUS, b.Site = append(b.AllocatedUS, of.Acquired.Microseconds()), append(b.Site, number(of.Site))
	}
	b.Known = p.book.Known()
	return b
}

func byAddr(a, b history.Block) int { return cmp.Compare(a.Addr, b.Addr) }

// events returns the last n events.
func (p *recordingPage) events(n int) *page.Events {
	rows := make([]page.EventRow, 0, min(n, int(p.counts.Events)))
	var all int64
	type who struct {
		stack *recording.Stack
		child string
	}
	sites := make(map[who]int)
	site := func(e recording.Event) int {
		if e.Stack == nil || e.Kind > alloctrace.Reallocated {
			return -1
		}
		at := who{e.Stack, e.Child}
		number, ok := sites[at]
		if !ok {
			number = p.book.Site(e.Child, framesOfCalls(e.Stack.Frames), false)
			sites[at] = number
		}
		return number
	}
	p.read(history.Options{Observe: func(e recording.Event) {
		row := page.EventRow{Kind: e.Kind, Addr: uint64(e.Addr), Size: uint64(e.Size), Owner: p.book.Text(e.Child), Site: site(e), Timed: true, AtNS: int64(e.At)}
		if e.Dropped > 0 {
			row.Kind, row.Size = 0, uint64(e.Dropped)
		}
		if n == 0 {
			all++
			return
		}
		if len(rows) < n {
			rows = append(rows, row)
		} else {
			rows[all%int64(n)] = row
		}
		all++
	}})
	w := page.NewEventWriter(len(rows))
	first := max(0, all-int64(len(rows)))
	for i := first; i < all; i++ {
		w.Add(rows[i%int64(max(1, n))])
	}
	e := w.Events()
	e.AtUS, e.First, e.All = p.last.Microseconds(), first, all
	e.Known = p.book.Known()
	return e
}

// mostGroups is how many groups a timeline has.
const mostGroups = 200

func (p *recordingPage) timeline(by string, steps int) (*page.Timeline, error) {
	p.pass.Lock()
	t, err := history.NewTimeline(p.in, by, steps, history.Options{})
	p.pass.Unlock()
	if err != nil {
		return nil, err
	}
	line := &page.Timeline{By: by, BeginUS: t.Begin.Microseconds(), StepUS: float64(t.Step) / float64(time.Microsecond), Total: t.Total.Values, Groups: []page.TimelineGroup{}}
	rows := make(map[int]int) // of sites: those of two Proxies can be one
	for _, g := range t.Groups {
		of := page.TimelineGroup{Site: -1, Name: g.Region, Peak: g.Peak, Values: g.Values}
		switch {
		case g.Site != nil:
			of.Site = p.site(g.Site)
			if row, ok := rows[of.Site]; ok {
				addGroup(&line.Groups[row], &of)
				continue
			}
			rows[of.Site] = len(line.Groups)
		case by == "child":
			of.Name = p.ownerName(g.Proxy, g.Child)
		}
		line.Groups = append(line.Groups, of)
	}
	slices.SortStableFunc(line.Groups, func(a, b page.TimelineGroup) int { return cmp.Compare(b.Peak, a.Peak) })
	p.setEnds(line)
	if all := line.Groups; len(all) > mostGroups {
		rest := page.TimelineGroup{Site: -1, Rest: len(all) - mostGroups + 1, Values: make([]int64, len(line.Total))}
		for i := range all[mostGroups-1:] {
			addGroup(&rest, &all[mostGroups-1+i])
		}
		line.Groups = append(all[:mostGroups-1], rest)
	}
	line.Known = p.book.Known()
	return line, nil
}

// setEnds sets what is live at the end, where the last step has the most of its time.
func (p *recordingPage) setEnds(line *page.Timeline) {
	type group struct {
		site int
		name string
	}
	ends := make(map[group]int64)
	var all int64
	number := p.siteNumbers()
	for i := range p.live {
		b := &p.live[i]
		of := group{site: -1}
		switch line.By {
		case "site":
			of.site = number(b.Site)
		case "child":
			of.name = p.ownerName(b.Site.Proxy, b.Site.Child)
		case "region":
			of.name = b.Region
		}
		ends[of] += int64(b.Size)
		all += int64(b.Size)
	}
	last := len(line.Total) - 1
	line.Total[last] = all
	for i := range line.Groups {
		g := &line.Groups[i]
		g.Values[last] = ends[group{g.Site, g.Name}]
	}
}

// addGroup adds the values of another, which are of the same steps.
func addGroup(to, g *page.TimelineGroup) {
	to.Peak = 0
	for step, bytes := range g.Values {
		to.Values[step] += bytes
		to.Peak = max(to.Peak, to.Values[step])
	}
}

// ownerName returns the name of a Proxy or child, with its Proxy's if there are several.
func (p *recordingPage) ownerName(proxy, child string) string {
	several := slices.ContainsFunc(p.owners, func(o recordedOwner) bool { return o.Proxy != proxy })
	switch {
	case child == "":
		return cmp.Or(proxy, "Proxy")
	case several:
		return cmp.Or(proxy, "Proxy") + "/" + child
	}
	return child
}

// between returns what was acquired in a span of time.
func (p *recordingPage) between(fromUS, toUS int64) *page.Between {
	from, to := momentOf(fromUS), momentOf(toUS)
	b := &page.Between{FromUS: fromUS, ToUS: toUS, AtUS: toUS}
	number := p.siteNumbers()
	rows := newSiteRows()
	p.read(history.Options{Ended: func(block history.Block) {
		if block.Older || block.Acquired < from || block.Acquired > to {
			return
		}
		is := history.Amount{Blocks: 1, Bytes: int64(block.Size)}
		var live history.Amount
		if block.LiveAt(to) {
			live = is
		}
		rows.add(number(block.Site), siteStats(live, is), 0)
	}})
	c := rows.columns()
	b.Site, b.Live, b.LiveBlocks, b.Allocated, b.AllocatedBlocks = c.Site, c.Live, c.LiveBlocks, c.Allocated, c.AllocatedBlocks
	b.Known = p.book.Known()
	return b
}

// suspectLeak says how suspicious a site is, and why.
func suspectLeak(k *history.Leak) (suspicion int, why string) {
	switch {
	case k.Grows && k.Freed.Blocks == 0:
		return 3, fmt.Sprintf("more was live after each quarter, and none of %s was released", number(k.Allocated.Blocks, "block"))
	case k.Grows && k.Quarters[3]-k.Quarters[2] >= k.Quarters[3]/20 && float64(k.Quarters[3]-k.Quarters[0]) > noise(k): // what has only been filled varies a little
		return 2, fmt.Sprintf("more was live after each quarter: %s were released of %s", number(k.Freed.Blocks, "block"), number(k.Allocated.Blocks, "block"))
	case k.Outlived > 0:
		return 1, fmt.Sprintf("%s lived longer than any that was released, which was after %s at most", have(k.Outlived), since(k.Longest))
	}
	return 0, ""
}

// noise returns by how many bytes a site can grow by chance that has live blocks of different sizes in the place of as many others: four standard errors,
// as for the page of a program.
func noise(k *history.Leak) float64 {
	return 4 * float64(k.Live.Bytes) * math.Sqrt(2/float64(max(1, k.Live.Blocks)))
}

func have(n int64) string {
	if n == 1 {
		return "1 block has"
	}
	return number(n, "block") + " have"
}

// The map of a recording is of addresses alone: live blocks with less than maxGap between them are a span, which ends where an address
// is a multiple of maxSpan.
const (
	maxGap  = 64 << 10
	maxSpan = 4 << 20
)

// memoryMap returns where the blocks lie that are live at the end.
func (p *recordingPage) memoryMap() *page.Map {
	m := &page.Map{AtUS: p.last.Microseconds(), Allocators: []page.MapAllocator{}}
	byProxy := make(map[string][]history.Block)
	for _, b := range p.live {
		byProxy[b.Site.Proxy] = append(byProxy[b.Site.Proxy], b)
	}
	number := p.siteNumbers()
	for _, o := range p.owners {
		blocks := byProxy[o.Proxy]
		if len(blocks) == 0 {
			continue
		}
		delete(byProxy, o.Proxy)
		slices.SortFunc(blocks, byAddr)
		a := page.MapAllocator{
			Name: cmp.Or(o.Proxy, "Proxy"), Kind: "addresses", Span: "addresses", AddrMin: int64(blocks[0].Addr),
			Spans:  page.Spans{Addr: []int64{}, Size: []int64{}, Free: []int64{}},
			Blocks: page.Placed{Addr: []int64{}, Size: []int64{}, Span: []int{}, AllocatedUS: []int64{}, Site: []int{}},
		}
		var begin, end uintptr // of the last span
		for i, b := range blocks {
			if i == 0 || b.Addr > end && b.Addr-end >= maxGap || b.Addr/maxSpan != begin/maxSpan {
				a.Spans.Addr, a.Spans.Size, a.Spans.Free = append(a.Spans.Addr, int64(b.Addr)-a.AddrMin), append(a.Spans.Size, 0), append(a.Spans.Free, 0)
				begin, end = b.Addr, b.Addr
			}
			row := len(a.Spans.Addr) - 1
			if b.Addr+b.Size > end { // else it is in another, as that of a recording with gaps may be
				a.Spans.Size[row] += int64(b.Addr + b.Size - end)
				a.Spans.Free[row] += int64(max(b.Addr, end) - end)
				end = b.Addr + b.Size
			}
			if len(a.Blocks.Addr) == maxPlaced {
				a.Omitted++
				continue
			}
			a.Blocks.Addr, a.Blocks.Size, a.Blocks.Span = append(a.Blocks.Addr, int64(b.Addr)-a.AddrMin), append(a.Blocks.Size, int64(b.Size)), append(a.Blocks.Span, row)
			a.Blocks.AllocatedUS, a.Blocks.Site = append(a.Blocks.AllocatedUS, b.Acquired.Microseconds()), append(a.Blocks.Site, number(b.Site))
		}
		m.Allocators = append(m.Allocators, a)
	}
	m.Known = p.book.Known()
	return m
}

// maxPlaced is how many blocks a map has.
const maxPlaced = 100_000
