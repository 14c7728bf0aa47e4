package debugpage

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/internal/page"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// marked is what there was when somebody first looked, or set a mark.
type marked struct {
	growth    *heapprofile.Mark
	allocated map[int]int64 // bytes, in all, by site
	at        time.Time
}

func newMarked(l *live) *marked {
	m := &marked{allocated: make(map[int]int64), at: time.Now(), growth: l.o.Profile.Mark()}
	for _, s := range l.siteSums() {
		m.allocated[s.site] = s.allocated
	}
	return m
}

func (l *live) setMark(m *marked) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mark = m
}

// marking returns the mark, which it makes if there is none.
func (l *live) marking() *marked {
	l.mu.Lock()
	mark := l.mark
	l.mu.Unlock()
	if mark == nil {
		mark = newMarked(l)
		l.setMark(mark)
	}
	return mark
}

// leaks returns how what is live has grown since the mark.
func (l *live) leaks() *page.Leaks {
	mark := l.marking()
	lives := make(map[int]*longest)
	known := l.readLifetimes()
	for i := range known {
		lives[l.site(known[i].Owner, known[i].Stack)] = longestOf(&known[i])
	}
	allocated := make(map[int]int64)
	for _, s := range l.siteSums() {
		allocated[s.site] = s.allocated
	}
	growth := mark.growth.Growth()
	rows := make([]page.Leak, 0, len(growth.Sites))
	for _, g := range growth.Sites {
		if g.Live.Bytes <= 0 {
			continue
		}
		site := l.site(g.Owner, g.Stack)
		row := page.Leak{
			Site: site, Live: g.Live.Bytes, LiveBlocks: g.Live.Blocks, Before: g.Before.Bytes, Freed: g.Freed.Bytes, Added: g.Added.Bytes,
			OldestUS: l.us(g.Oldest), NewestUS: l.us(g.Newest), LongestUS: -1,
		}
		if of := lives[site]; of != nil {
			row.LongestUS, row.Outlived = of.us, of.outlived
		}
		since := max(allocated[site]-mark.allocated[site], g.Added.Bytes)
		row.Noise = noise(&g, since)
		row.Suspicion, row.Why = suspect(&g, since, row.Noise, row.LongestUS, row.Outlived)
		rows = append(rows, row)
	}
	slices.SortStableFunc(rows, func(a, b page.Leak) int {
		return cmp.Or(cmp.Compare(b.Suspicion, a.Suspicion), cmp.Compare(b.Added-b.Freed, a.Added-a.Freed), cmp.Compare(b.Live, a.Live))
	})
	leaks := page.NewLeaks(rows, known != nil, false)
	leaks.AtUS, leaks.SinceUS = l.us(growth.To), l.us(growth.From)
	leaks.Caution = "That a block is live does not say that it leaks: a cache that fills has such blocks too."
	leaks.Known = l.book.Known()
	return leaks
}

// longest is how long blocks that were freed have lived, and how many live ones have lived longer.
type longest struct {
	us       int64 // -1 if none was freed
	outlived int64
}

func longestOf(l *heapprofile.Lifetime) *longest {
	of := &longest{us: -1}
	if len(l.Ended.Times) == 0 {
		return of
	}
	most := l.Ended.Times[len(l.Ended.Times)-1].Most
	of.us = most.Microseconds()
	for _, t := range l.Live.Times {
		if t.Most > most {
			of.outlived += t.Blocks
		}
	}
	return of
}

// fewBlocks are too few to say anything.
const fewBlocks = 3

// chance is how many standard errors a change is to be larger than, for it to be none of a thousand sites that go up and down.
const chance = 4

// noise returns by how many bytes a site can change by chance: one that frees as much as it allocates, blocks of different sizes, now and then. It is 0
// for one that has freed nothing.
func noise(g *heapprofile.SiteGrowth, allocated int64) int64 {
	if g.Freed.Bytes == 0 && allocated == g.Added.Bytes {
		return 0
	}
	variance := float64(g.Error) * float64(g.Error)
	for _, a := range []heapprofile.Amount{g.Added, g.Freed} {
		if a.Blocks > 0 {
			variance += float64(a.Bytes) * float64(a.Bytes) / float64(a.Blocks)
		}
	}
	return chance * rounded(variance)
}

// suspect says how suspicious a site is that has allocated so many bytes since the mark, and why.
func suspect(g *heapprofile.SiteGrowth, allocated, noise, longestUS, outlived int64) (suspicion int, why string) {
	change := g.Change()
	switch {
	case g.Added.Blocks < fewBlocks || change <= 0:
	case g.Freed.Bytes == 0 && allocated == g.Added.Bytes:
		return 3, fmt.Sprintf("%s more in %s since the mark, and none was freed", counter.FormatBytes(g.Added.Bytes), blocks(g.Added.Blocks))
	case change >= allocated/20 && change > noise:
		return 2, fmt.Sprintf("%s more since the mark: %s was allocated, and %s freed",
			counter.FormatBytes(change), counter.FormatBytes(allocated), counter.FormatBytes(max(0, allocated-change)))
	}
	if outlived > 0 {
		return 1, fmt.Sprintf("%s lived longer than any that was freed, which was after %v at most", have(outlived), time.Duration(longestUS)*time.Microsecond)
	}
	return 0, ""
}

func blocks(n int64) string {
	if n == 1 {
		return "1 block"
	}
	return fmt.Sprintf("%d blocks", n)
}

func have(n int64) string {
	if n == 1 {
		return "1 block has"
	}
	return blocks(n) + " have"
}

// lived returns how long the blocks of sites live.
func (l *live) lived() (*page.Lifetimes, error) {
	known := l.readLifetimes()
	if known == nil {
		return nil, page.NoData(noLifetimes)
	}
	list := &page.Lifetimes{AtUS: l.now(), MostUS: page.LifetimeClasses(), Rows: make([]page.Lived, 0, len(known))}
	for i := range known {
		k := &known[i]
		row := page.Lived{
			Site: l.site(k.Owner, k.Stack), Ended: counts(k.Ended.Times), Live: counts(k.Live.Times), EndedBytes: k.Ended.Bytes, LiveBytes: k.Live.Bytes,
			HalfUS: page.Quantile(k, 0.5), MostUS: page.Quantile(k, 0.99), FreedBy: []int{}, Elsewhere: k.Elsewhere, Advice: k.Advice(),
		}
		if len(k.FreedBy) > 0 {
			row.FreedBy, row.FreedByBlocks = l.book.Frames(framesOf(k.FreedBy[0].Stack)), k.FreedBy[0].Blocks
		}
		list.Rows = append(list.Rows, row)
	}
	list.Known = l.book.Known()
	return list, nil
}

// counts returns the blocks of each class.
func counts(times []heapprofile.Times) []int64 {
	h := page.NewHistogram()
	for _, t := range times {
		h.Add(t.Most, t.Blocks)
	}
	return h.Counts()
}

// unreachable finds the live blocks that nothing points to any more.
func (l *live) unreachable(ctx context.Context) (*page.Unreachable, error) {
	if !l.o.Unreachable {
		return nil, page.NoData(noUnreachable)
	}
	if !l.searching.TryLock() {
		return nil, &page.Failure{Status: http.StatusTooManyRequests, Text: "somebody else has asked for it already: wait for the answer"}
	}
	defer l.searching.Unlock()
	found, err := l.o.Profile.Unreachable(ctx)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil, &page.Failure{Status: http.StatusNotImplemented, Text: err.Error()}
	} else if err != nil {
		return nil, err
	}
	u := &page.Unreachable{AtUS: l.now(), Looked: found.Looked, PauseUS: found.Pause.Microseconds(), Text: found.String(), Site: []int{}, Blocks: []int64{}, Bytes: []int64{}, OldestUS: []int64{}}
	for _, s := range found.Report.Sites {
		u.Site, u.Blocks, u.Bytes, u.OldestUS = append(u.Site, l.site(s.Owner, s.Stack)), append(u.Blocks, s.Blocks), append(u.Bytes, s.Bytes), append(u.OldestUS, l.us(s.Oldest))
	}
	u.Known = l.book.Known()
	return u, nil
}
