package debugpage

import (
	"cmp"
	"math"
	"slices"
	"time"
	"unsafe"

	"github.com/alloctrace/alloctrace/exporters/internal/page"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// rounded returns the standard error of a variance.
func rounded(variance float64) int64 { return int64(math.Sqrt(max(0, variance)) + 0.5) }

// A siteFinder finds the sites of many blocks, of which most have the stacks of others.
type siteFinder struct {
	of    *live
	known map[blockSite]int
}

type blockSite struct {
	stack *heapprofile.Frame
	owner string
}

func (l *live) newSiteFinder() *siteFinder { return &siteFinder{l, make(map[blockSite]int)} }

func (f *siteFinder) site(b *heapprofile.Block) int {
	key := blockSite{unsafe.SliceData(b.Stack), b.Owner}
	n, ok := f.known[key]
	if !ok {
		n = f.of.site(b.Owner, b.Stack)
		f.known[key] = n
	}
	return n
}

// blocks returns n live blocks at most.
func (l *live) blocks(n int) *page.Blocks {
	list := l.o.Profile.Blocks()
	b := page.NewBlocks(min(n, len(list)))
	b.AtUS, b.All = l.now(), int64(len(list))
	order := make([]int, len(list))
	for i := range order {
		order[i] = i
	}
	if len(list) > n {
		bytes := func(i int) float64 { return float64(list[i].Size) * list[i].Weight }
		slices.SortFunc(order, func(a, b int) int { return cmp.Or(cmp.Compare(bytes(b), bytes(a)), cmp.Compare(a, b)) })
		order = order[:n]
		slices.Sort(order)
	}
	if len(list) > 0 {
		b.AddrMin = int64(slices.MinFunc(list, func(a, b heapprofile.Block) int { return cmp.Compare(a.Addr, b.Addr) }).Addr)
	}
	sites := l.newSiteFinder()
	for row, i := range order {
		at := &list[i]
		b.Addr = append(b.Addr, int64(at.Addr)-b.AddrMin)
		b.Size = append(b.Size, int64(at.Size))
		b.AllocatedUS = append(b.AllocatedUS, l.us(at.Allocated))
		b.Site = append(b.Site, sites.site(at))
		if at.Weight != 1 && b.Weight == nil {
			b.Weight = slices.Repeat([]float64{1}, row)
		}
		if b.Weight != nil {
			b.Weight = append(b.Weight, math.Round(at.Weight*1000)/1000)
		}
	}
	b.Known = l.book.Known()
	return b
}

// between returns what was allocated in a span of time and is live.
func (l *live) between(from, to int64) *page.Between {
	since, until := l.at(from), l.at(to)
	now := l.now()
	sums := l.sums(l.o.Profile.SamplesOf(func(b heapprofile.Block) bool { return !b.Allocated.Before(since) && !b.Allocated.After(until) }))
	b := &page.Between{FromUS: from, ToUS: to, AtUS: now, Site: []int{}, Live: []int64{}, LiveBlocks: []int64{}}
	for _, s := range sums {
		b.Site, b.Live, b.LiveBlocks = append(b.Site, s.site), append(b.Live, s.live), append(b.LiveBlocks, s.liveBlocks)
	}
	b.Known = l.book.Known()
	return b
}

// events returns the last n events.
func (l *live) events(n int) (*page.Events, error) {
	if l.o.Ring == nil {
		return nil, page.NoData(noRing)
	}
	records := l.o.Ring.Records()
	all := int64(l.o.Ring.Observed())
	records = records[len(records)-min(n, len(records)):]
	w := page.NewEventWriter(len(records))
	for _, r := range records {
		row := page.EventRow{Kind: r.Kind, Addr: uint64(r.Addr), Size: uint64(r.Size), Owner: l.book.Text(r.Child), Site: -1, Err: r.Err}
		if !r.Time.IsZero() {
			row.Timed, row.AtNS = true, int64(r.Time.Sub(l.began)/time.Nanosecond)
		}
		w.Add(row)
	}
	e := w.Events()
	e.AtUS, e.All, e.First = l.now(), all, max(0, all-int64(len(records)))
	e.Known = l.book.Known()
	return e, nil
}
