package rss

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/exporters/internal/pagemap"
	"github.com/alloctrace/alloctrace/internal/sources"
	"github.com/alloctrace/alloctrace/internal/text"
)

// Read explains the resident memory of the process. The report has the memory of each of the
// allocators by itself: of a Proxy with its children, or of another source, which is Assumed if
// it is no allocator. Read panics if a source is nil. Several goroutines may call it at once.
func Read(allocators ...counter.Source) (Report, error) {
	sources.Require("rss: Read", allocators...)
	r := Report{Allocators: make([]Allocator, len(allocators))}
	own := make([]ranges, len(allocators))
	for i, s := range allocators {
		r.Allocators[i], own[i] = describe(s)
	}
	if err := r.read(own); err != nil {
		return Report{}, fmt.Errorf("rss: Read: %w", err)
	}
	return r, nil
}

// describe returns what is known of a source, and its ranges.
func describe(s counter.Source) (Allocator, ranges) {
	stats := s.Stats()
	a := Allocator{Live: stats.LiveBytes, Reserved: stats.LiveBytes, Assumed: true}
	if stats.AllocatedBytes > 0 {
		a.Slack = int64(float64(a.Live) * (1 - float64(stats.RequestedBytes)/float64(stats.AllocatedBytes)))
	}
	if named, ok := s.(interface{ Name() string }); ok {
		a.Name = text.Name(named.Name())
	}
	allocator, ok := s.(blockalloc.Allocator)
	if !ok {
		a.Name = cmp.Or(a.Name, fmt.Sprintf("%T", s))
		return a, nil
	}
	a.Name = cmp.Or(a.Name, text.Name(strings.SplitN(blockalloc.Tree(allocator), "\n", 2)[0]))
	list, complete := blockalloc.Mappings(allocator)
	if !complete {
		return a, nil
	}
	own := union(list)
	a.Assumed, a.Reserved = false, own.size()
	return a, own
}

// read reads what the kernel has.
func (r *Report) read(own []ranges) error {
	pages, err := pagemap.Open()
	if err != nil {
		return err
	}
	defer pages.Close()
	maps, err := readMappings("/proc/self/smaps")
	if err != nil {
		return err
	}
	r.sum(maps, pages, own)
	return pages.Err()
}

// sum sums up what is in maps.
func (r *Report) sum(maps []mapping, pages *pagemap.File, own []ranges) {
	a := account{r, pages, own, union(slices.Concat(own...)), atStart.ranges, findHeap(maps)}
	goNamed := slices.ContainsFunc(maps, func(m mapping) bool { return strings.HasPrefix(m.name, goNames) })
	if goNamed {
		a.goEarly = nil
	}
	for i := range maps {
		if m := &maps[i]; m.rss > 0 {
			a.add(m, maps[:i])
		}
	}
	r.sortRest()
	r.assume()
	if !goNamed {
		r.estimate(&a.goHeap)
	}
}

// An account is what a Report is made by.
type account struct {
	*Report
	pages   *pagemap.File
	own     []ranges // of each allocator
	tracked ranges   // of all of them
	goEarly ranges
	goHeap  goHeap
}

// add adds what is resident of m. Below are the mappings at lower addresses.
func (a *account) add(m *mapping, below []mapping) {
	a.RSS += m.rss
	tracked := a.allocators(m)
	switch {
	case m.start >= a.goHeap.start && m.end <= a.goHeap.end || m.name == goHeapName:
		a.GoHeap += m.rss
		return
	case strings.HasPrefix(m.name, goNames):
		a.GoOther += m.rss
		return
	}
	a.Tracked += tracked
	left := m.rss - tracked
	switch {
	case m.isFile() || m.isProgram(below):
		a.Files += left
		return
	case m.name == "[stack]":
		a.GoOther += left
		return
	}
	early := min(residentIn(a.pages, m, a.goEarly), left)
	a.GoOther += early
	if left -= early; left > 0 {
		a.Unattributed += left
		a.Rest = append(a.Rest, Mapping{m.start, m.end - m.start, left, text.Name(m.name)})
	}
}

// allocators adds to each allocator what it has in m, and returns what all have.
func (a *account) allocators(m *mapping) (tracked int64) {
	have := 0
	for i, o := range a.own {
		if n := residentIn(a.pages, m, o); n > 0 {
			a.Allocators[i].Resident += n
			tracked = n
			have++
		}
	}
	if have > 1 { // perhaps of the same pages
		tracked = residentIn(a.pages, m, a.tracked)
	}
	return min(tracked, m.rss)
}

// assume counts as tracked the live bytes of allocators without a Mapper, and takes them from
// the largest mappings.
func (r *Report) assume() {
	for i := range r.Allocators {
		if a := &r.Allocators[i]; a.Assumed {
			a.Resident = min(a.Live, r.Unattributed)
			r.Tracked += a.Resident
			r.take(a.Resident, false)
		}
	}
	r.sortRest() // the first may have little left
}

func (r *Report) sortRest() {
	slices.SortStableFunc(r.Rest, func(a, b Mapping) int { return cmp.Compare(b.Resident, a.Resident) })
}

// estimate counts as Go's what the runtime has got beside its heap since the start. It is
// taken from the smallest mappings.
func (r *Report) estimate(h *goHeap) {
	n := min(max(h.beside()-atStart.besideHeap, 0), r.Unattributed)
	r.GoOther += n
	r.take(n, true)
}

// take takes n bytes, which there are, from what is unattributed: from the largest mappings
// or the smallest.
func (r *Report) take(n int64, smallest bool) {
	for r.Unattributed -= n; n > 0; {
		i := 0
		if smallest {
			i = len(r.Rest) - 1
		}
		part := min(n, r.Rest[i].Resident)
		n -= part
		if r.Rest[i].Resident -= part; r.Rest[i].Resident == 0 {
			r.Rest = slices.Delete(r.Rest, i, i+1)
		}
	}
}
