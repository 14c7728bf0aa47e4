package main

import (
	"cmp"
	"fmt"
	"path"
	"slices"

	"github.com/alloctrace/alloctrace/exporters/internal/page"
	"github.com/alloctrace/alloctrace/exporters/recording"
	"github.com/alloctrace/alloctrace/exporters/recording/history"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// lifetimes returns how long blocks live, those that were released without what the recording does not know.
func (p *recordingPage) lifetimes() *page.Lifetimes {
	l := &page.Lifetimes{AtUS: p.last.Microseconds(), MostUS: page.LifetimeClasses(), Rows: []page.Lived{}}
	seen := make(map[int]bool)
	for _, s := range p.sites {
		number := p.site(s.Site)
		if of := p.lives[number]; of != nil && !seen[number] {
			seen[number] = true
			l.Rows = append(l.Rows, p.lived(number, of))
		}
	}
	slices.SortStableFunc(l.Rows, func(a, b page.Lived) int { return cmp.Compare(b.EndedBytes+b.LiveBytes, a.EndedBytes+a.LiveBytes) })
	l.Known = p.book.Known()
	return l
}

func (p *recordingPage) lived(site int, of *recordedLives) page.Lived {
	row := page.Lived{Site: site, Ended: of.ended.Counts(), Live: of.live.Counts(), EndedBytes: of.endedBytes, LiveBytes: of.liveBytes, FreedBy: []int{}}
	lived := heapprofile.Lifetime{Ended: of.ended.Lived(), Live: of.live.Lived(), Stack: profileFrames(of.site.Stack), FreedBy: of.freed()}
	row.HalfUS, row.MostUS = page.Quantile(&lived, 0.5), page.Quantile(&lived, 0.99)
	if len(lived.FreedBy) > 0 {
		most := lived.FreedBy[0]
		row.FreedBy, row.FreedByBlocks = p.book.Frames(pageFrames(most.Stack)), most.Blocks
		row.Advice = lived.Advice()
		return row
	}
	// Who has freed them is not known: what would be said if it were the function that has allocated them?
	lived.FreedBy = []heapprofile.FreedBy{{Blocks: lived.Ended.Blocks, Stack: lived.Stack}}
	if lived.Advice() != "" {
		most, _ := lived.Quantile(0.99)
		row.Advice = fmt.Sprintf("99%% live up to %v: if %s frees what it allocates, a blockalloc.Bump or Scoped gives all back at once", most, line(path.Base(lived.Stack[0].Function)))
	}
	return row
}

// freed returns who has freed, the most blocks first.
func (l *recordedLives) freed() (list []heapprofile.FreedBy) {
	rows := make(map[string]int)
	for stack, blocks := range l.freedBy {
		name := stackColumn(stack.Frames)
		i, ok := rows[name]
		if !ok {
			i = len(list)
			rows[name], list = i, append(list, heapprofile.FreedBy{Stack: profileFrames(stack.Frames)})
		}
		list[i].Blocks += blocks
	}
	slices.SortFunc(list, func(a, b heapprofile.FreedBy) int { return cmp.Compare(b.Blocks, a.Blocks) })
	return list
}

func profileFrames(stack []recording.Frame) []heapprofile.Frame {
	frames := make([]heapprofile.Frame, len(stack))
	for i, f := range stack {
		frames[i] = heapprofile.Frame(f)
	}
	return frames
}

func pageFrames(stack []heapprofile.Frame) []page.Frame {
	frames := make([]page.Frame, len(stack))
	for i, f := range stack {
		frames[i] = page.Frame(f)
	}
	return frames
}

// leaks returns what is live at the end.
func (p *recordingPage) leaks() *page.Leaks {
	p.pass.Lock()
	found := history.FindLeaks(p.in, history.Options{})
	p.pass.Unlock()
	byNumber := make(map[int]int)
	var merged []history.Leak
	for i := range found.Sites {
		k := &found.Sites[i]
		number := p.site(k.Site)
		if row, ok := byNumber[number]; ok {
			merged[row] = p.bothLeaks(&merged[row], k)
			continue
		}
		byNumber[number] = len(merged)
		merged = append(merged, *k)
	}
	rows := make([]page.Leak, 0, len(merged))
	for i := range merged {
		k := &merged[i]
		row := page.Leak{
			Site: p.site(k.Site), Live: k.Live.Bytes, LiveBlocks: k.Live.Blocks, Before: k.Quarters[0], Added: max(0, k.Quarters[3]-k.Quarters[0]), Freed: max(0, k.Quarters[0]-k.Quarters[3]),
			OldestUS: k.Oldest.Microseconds(), NewestUS: k.Newest.Microseconds(), LongestUS: -1, Outlived: k.Outlived, Quarters: k.Quarters[:],
		}
		if k.Site.Freed.Blocks > 0 {
			row.LongestUS = k.Longest.Microseconds()
		}
		row.Suspicion, row.Why = suspectLeak(k)
		rows = append(rows, row)
	}
	slices.SortStableFunc(rows, func(a, b page.Leak) int {
		return cmp.Or(cmp.Compare(b.Suspicion, a.Suspicion), cmp.Compare(b.Added-b.Freed, a.Added-a.Freed), cmp.Compare(b.Live, a.Live))
	})
	l := page.NewLeaks(rows, true, true)
	l.AtUS, l.SinceUS = p.last.Microseconds(), found.Moments[0].Microseconds()
	l.Caution = "That a block is live at the end does not say that it leaks: a cache has such blocks too."
	l.Known = p.book.Known()
	return l
}

// bothLeaks returns the leaks of two Proxies at one site as one.
func (p *recordingPage) bothLeaks(a, b *history.Leak) history.Leak {
	sum := func(a, b history.Amount) history.Amount {
		return history.Amount{Blocks: a.Blocks + b.Blocks, Bytes: a.Bytes + b.Bytes}
	}
	both := history.Leak{
		Site: &history.Site{
			Child: a.Child, Stack: a.Stack, Live: sum(a.Live, b.Live), Allocated: sum(a.Allocated, b.Allocated), Freed: sum(a.Site.Freed, b.Site.Freed), Longest: max(a.Longest, b.Longest),
		},
		Oldest: min(a.Oldest, b.Oldest), Newest: max(a.Newest, b.Newest), Grows: true,
	}
	for i := range both.Quarters {
		both.Quarters[i] = a.Quarters[i] + b.Quarters[i]
		both.Grows = both.Grows && (i == 0 || both.Quarters[i] > both.Quarters[i-1])
	}
	site := p.site(both.Site)
	number := p.siteNumbers()
	for i := range p.live {
		if k := &p.live[i]; both.Site.Freed.Blocks > 0 && number(k.Site) == site && p.last-k.Acquired > both.Longest {
			both.Outlived++
		}
	}
	return both
}
