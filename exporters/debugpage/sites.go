package debugpage

import (
	"cmp"
	"slices"
	"unsafe"

	"github.com/alloctrace/alloctrace/exporters/internal/page"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// A sampleKey tells samples apart: by where their stacks and labels are, which a Profile keeps for ever. So to find the site of one that was seen
// costs no look at its calls.
type sampleKey struct {
	stack  *uintptr
	labels *heapprofile.Label
}

// siteOf returns the number of a sample's site.
func (l *live) siteOf(s heapprofile.Sample) int {
	key := sampleKey{unsafe.SliceData(s.Stack), unsafe.SliceData(s.Labels)}
	l.mu.Lock()
	n, ok := l.sites[key]
	l.mu.Unlock()
	if !ok {
		n = l.site(s.Owner(), s.Frames())
		l.mu.Lock()
		l.sites[key] = n
		l.mu.Unlock()
	}
	return n
}

// mostFrames is how many frames a stack of a heap profile has at most.
const mostFrames = 32

// site returns the number of a site of a report.
func (l *live) site(owner string, stack []heapprofile.Frame) int {
	return l.book.Site(owner, framesOf(stack), len(stack) >= mostFrames)
}

func framesOf(stack []heapprofile.Frame) []page.Frame {
	frames := make([]page.Frame, len(stack))
	for i, f := range stack {
		frames[i] = page.Frame(f)
	}
	return frames
}

// siteSum is what the samples of one site add up to.
type siteSum struct {
	site                       int
	live, liveBlocks           int64
	variance                   float64 // of live
	allocated, allocatedBlocks int64
}

// siteSums returns what each site holds and has allocated, the most live bytes first.
func (l *live) siteSums() []siteSum {
	if l.o.Profile == nil {
		return nil
	}
	return l.sums(l.o.Profile.Samples())
}

func (l *live) sums(samples []heapprofile.Sample) []siteSum {
	list := make([]siteSum, 0, len(samples))
	rows := make(map[int]int, len(samples))
	for _, s := range samples {
		site := l.siteOf(s)
		row, ok := rows[site]
		if !ok {
			row = len(list)
			rows[site], list = row, append(list, siteSum{site: site})
		}
		sum := &list[row]
		sum.live += s.LiveBytes
		sum.liveBlocks += s.LiveBlocks
		sum.variance += float64(s.LiveError) * float64(s.LiveError)
		sum.allocated += s.AllocatedBytes
		sum.allocatedBlocks += s.AllocatedBlocks
	}
	slices.SortStableFunc(list, func(a, b siteSum) int {
		return cmp.Or(cmp.Compare(b.live, a.live), cmp.Compare(b.allocated, a.allocated))
	})
	return list
}

// siteColumns returns the numbers of sites.
func (l *live) siteColumns() page.SiteColumns {
	c := page.NewSiteColumns()
	sums := l.siteSums()
	for i := range sums {
		s := &sums[i]
		c.Add(s.site, page.SiteStats{Live: s.live, LiveBlocks: s.liveBlocks, LiveError: rounded(s.variance), Allocated: s.allocated, AllocatedBlocks: s.allocatedBlocks})
	}
	if l.o.Profile == nil {
		return c
	}
	column := func(of map[int]int64) []int64 {
		list := make([]int64, len(c.Site))
		for row, site := range c.Site {
			list[row] = of[site]
		}
		return list
	}
	if k := l.o.Profile.Peak(); k != nil {
		at, bytes := k.Get(), make(map[int]int64)
		for _, s := range at.Samples {
			bytes[l.siteOf(s)] += s.LiveBytes
		}
		c.Peak = column(bytes)
		if at.Bytes > 0 {
			c.PeakUS = l.us(at.Time)
		}
	}
	if p := l.pinned.get(l.readPinned); p.bySite != nil {
		c.Pinned = column(p.bySite)
	}
	if lifetimes := l.readLifetimes(); lifetimes != nil {
		held := make(map[int]int64)
		for _, of := range lifetimes {
			var sum float64
			for _, t := range of.Ended.Times {
				sum += float64(t.Bytes) * 0.75 * t.Most.Seconds() * 1000 // the middle of the class
			}
			held[l.site(of.Owner, of.Stack)] += int64(min(sum, page.MaxNumber))
		}
		c.Lifetime = column(held)
	}
	return c
}

// pinnedBySite is how many bytes the blocks of each site pin, nil if nobody knows.
type pinnedBySite struct{ bySite map[int]int64 }

func (l *live) readPinned() (p pinnedBySite) {
	report, err := l.o.Profile.Pinned(l.allocators()...)
	if err != nil { // there is no allocator with spans
		return p
	}
	p.bySite = make(map[int]int64)
	for _, s := range report.Sites {
		p.bySite[l.site(s.Owner, s.Stack)] += s.Bytes
	}
	return p
}

// readLifetimes returns how long blocks live, nil if the Profile does not know.
func (l *live) readLifetimes() []heapprofile.Lifetime {
	return l.lifetimes.get(l.o.Profile.Lifetimes)
}
