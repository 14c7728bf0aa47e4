package heapprofile

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/text"
)

// A PinnedReport is what is free and cannot go to others, by the calls whose live blocks are in the way. It goes into JSON as it is.
type PinnedReport struct {
	Bytes   int64 `json:"bytes"`   // free in spans; at rest exactly what Stats of a Pool and a Slab say, see blockalloc.Spanner
	Known   int64 `json:"known"`   // of them, in spans with a live block that was sampled
	Unknown int64 `json:"unknown"` // of them, in spans of whose live blocks none was sampled
	Empty   int64 `json:"empty"`   // of them, in spans without a live block, which are kept for reuse: nobody pins them

	Rate int64 `json:"rate"` // as in Report

	// Error is the standard error of the sum of the sites' Bytes, which stands for Known and Unknown together.
	Error int64 `json:"sites_error,omitempty"`

	Allocators []PinnedIn     `json:"allocators"` // outer ones first
	Sites      []PinnedSite   `json:"sites"`      // the one with the most bytes first
	Samples    []PinnedSample `json:"-"`          // the same by whole stacks and labels
}

// A PinnedIn is what is free in the spans of one allocator.
type PinnedIn struct {
	Name  string `json:"name"`  // its type, such as Pool
	Spans int64  `json:"spans"` // with and without live blocks
	Size  int64  `json:"size"`  // bytes of them
	Bytes int64  `json:"bytes"` // free
}

// A PinnedSite is what is pinned by the blocks that the same calls have allocated for the same owner, those of Options.Skip aside.
type PinnedSite struct {
	Bytes int64 `json:"bytes"`                 // an estimate, rounded, if Rate is more than 1
	Error int64 `json:"bytes_error,omitempty"` // the standard error of Bytes
	Known int64 `json:"known"`                 // free in the spans whose oldest sampled block is of this site
	Spans int64 `json:"spans"`                 // so many

	Oldest time.Time     `json:"oldest"`          // of those blocks
	Age    time.Duration `json:"age_ns"`          // of the oldest, when the report was made
	Owner  string        `json:"owner,omitempty"` // see Options
	Stack  []Frame       `json:"stack"`           // from the function that allocated outwards, 32 frames at most; see Options.Skip
	Cut    bool          `json:"cut,omitempty"`   // the stack may have had more frames

	shown    int // how many calls String shows
	estimate float64
	variance float64
}

// A PinnedSample is what is pinned by the blocks of one stack and labels.
type PinnedSample struct {
	Stack  []uintptr // as in Sample
	Labels []Label
	Bytes  int64 // as in PinnedSite
}

// Pinned returns who pins memory: the free bytes of each span of the allocators, which are runs of a [blockalloc.Pool] and blocks of a
// [blockalloc.Slab], are charged to the oldest block in it that p knows. What is below an allocator is looked at too, as
// [blockalloc.Inner] yields it: so pass the Proxies whose hook p is. A reallocation makes a block the youngest, also if it stays in place.
//
// With a rate of 1 that is the oldest live block, and all is exact at rest. Otherwise blocks are missing. A span is weighted by
// 1/probability that one of its blocks was sampled, so that the sum is right on average, and so is the sum of each allocator. A
// site's part is then right on average for this division: walk through the live bytes of a span from the oldest
// on; each has the share exp(-x/rate), if x bytes are older. So the oldest have most, and where live bytes
// are few beside the rate, all have the same. Errors are for that too.
//
// The probability is that of now. If SetRate was called while blocks were live, or blocks were allocated by another way than the
// Proxies of p, or were Untracked, sums are too low or too high. Known, Unknown and Empty are what was seen,
// without weights, and always add up to Bytes.
//
// Pinned returns an error that wraps [errors.ErrUnsupported] if no Pool, Slab or other Spanner is there: [blockalloc.Default] is none
// on platforms that have only the Go heap. It panics if it is given no allocator, or nil. It may be called while others
// allocate. It costs a walk, see [blockalloc.Pool.Spans], and less than a microsecond for each span and each block that is
// remembered; it takes some 150 bytes for each meanwhile.
func (p *Profile) Pinned(of ...blockalloc.Allocator) (PinnedReport, error) {
	spanners := spannersOf(of)
	if len(spanners) == 0 {
		return PinnedReport{}, fmt.Errorf("heapprofile: Profile.Pinned: %w: a %s has no Pool or Slab below it: pass a Proxy of one", errors.ErrUnsupported, typeName(of[0]))
	}
	r := PinnedReport{Rate: int64(p.Rate())}
	var spans []span
	for _, s := range spanners {
		own := spansOf(s)
		r.Allocators = append(r.Allocators, pinnedIn(s, own))
		spans = append(spans, own...)
	}
	nest(spans)
	c := newCharges(p)
	c.chargeAll(&r, spans, p.placed())
	c.finish(&r)
	return r, nil
}

// finish sets what the sums of c are of.
func (c *charges) finish(r *PinnedReport) {
	now := time.Since(c.of.start)
	for _, s := range c.sites {
		if s.Spans > 0 {
			s.Bytes, s.Error = int64(s.estimate+0.5), int64(math.Sqrt(s.variance)+0.5)
			s.Age = max(0, now-s.Oldest.Sub(c.of.start))
			r.Sites = append(r.Sites, *s)
		}
	}
	slices.SortFunc(r.Sites, func(a, b PinnedSite) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), slices.CompareFunc(a.Stack, b.Stack, Frame.compare), cmp.Compare(a.Owner, b.Owner))
	})
	r.distinguish()
	for s, bytes := range c.bySite {
		r.Samples = append(r.Samples, PinnedSample{s.stack.pcs, s.labels, int64(bytes + 0.5)})
	}
	slices.SortFunc(r.Samples, func(a, b PinnedSample) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), slices.Compare(a.Stack, b.Stack))
	})
	r.Error = int64(math.Sqrt(c.variance) + 0.5)
}

// distinguish sets how many calls the lines of the first sites show.
func (r *PinnedReport) distinguish() {
	stacks := make([][]Frame, min(len(r.Sites), reportSites))
	for i := range stacks {
		stacks[i] = r.Sites[i].Stack
	}
	for i, most := range shown(stacks) {
		r.Sites[i].shown = most
	}
}

// String returns a line for the whole, one for each allocator, and one for each site, 50 at most, for example
//
//	2.2 MiB are free and pinned:
//	  Slab: 1.2 MiB of 1.5 MiB in 24 spans
//	  Pool: 1 MiB of 4 MiB in 1 span
//	by
//	  1.9 MiB in 22 spans: index.(*Index).grow (index.go:42), index.New (index.go:17); the oldest block is 1h12m old
//	  192 KiB in 3 spans by nobody: they are empty, and kept for reuse
func (r PinnedReport) String() string {
	if r.Bytes == 0 {
		return "nothing is pinned\n"
	}
	var lines strings.Builder
	fmt.Fprintf(&lines, "%s are free and pinned:\n", counter.FormatBytes(r.Bytes))
	for _, a := range r.Allocators {
		fmt.Fprintf(&lines, "  %s: %s of %s in %s\n", text.Line(a.Name, text.MaxName), counter.FormatBytes(a.Bytes), counter.FormatBytes(a.Size), number(a.Spans, "span"))
	}
	lines.WriteString("by\n")
	sites := slices.Clone(r.Sites)
	r.Sites = sites
	r.distinguish() // as Pinned does, but it may come from JSON
	for i, s := range sites {
		if i == reportSites {
			var bytes int64
			for _, s := range sites[i:] {
				bytes += s.Bytes
			}
			fmt.Fprintf(&lines, "  %s by %s\n", counter.FormatBytes(bytes), number(int64(len(sites)-i), "more site"))
			break
		}
		fmt.Fprintf(&lines, "  %s\n", s)
	}
	if r.Unknown > 0 {
		fmt.Fprintf(&lines, "  %s by unknown blocks, none of which was sampled\n", counter.FormatBytes(r.Unknown))
	}
	if r.Empty > 0 {
		fmt.Fprintf(&lines, "  %s by nobody: no block is live there, it is kept for reuse\n", counter.FormatBytes(r.Empty))
	}
	if r.Rate > 1 {
		fmt.Fprintf(&lines, "Sites are estimates, of %s in all that blocks pin, known or unknown: their sum is within %s two times in three.\n", counter.FormatBytes(r.Known+r.Unknown), counter.FormatBytes(r.Error))
	}
	return lines.String()
}

// String returns the site's line in the text of a report.
func (s PinnedSite) String() string {
	about, seen := "", fmt.Sprintf(" in %s", number(s.Spans, "span"))
	if s.Error > 0 {
		about, seen = "about ", fmt.Sprintf(", %s of it seen in %s", counter.FormatBytes(s.Known), number(s.Spans, "span"))
	}
	owner := ""
	if s.Owner != "" {
		owner = fmt.Sprintf(" of %q", s.Owner)
	}
	return fmt.Sprintf("%s%s%s%s: %s; the oldest block is %s old", about, estimate(s.Bytes, s.Error), seen, owner, calls(s.Stack, s.shown, s.Cut), age(s.Age))
}
