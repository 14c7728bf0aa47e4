package hooks

import (
	"cmp"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/alloctrace/alloctrace/counter"
)

// A LeakReport is what [Leaks] knows of, by the calls that allocated it. It goes into
// JSON as it is.
type LeakReport struct {
	Blocks int64      `json:"blocks"` // an estimate, rounded, if Rate is more than 1
	Bytes  int64      `json:"bytes"`  // likewise
	Rate   int64      `json:"rate"`   // one block was remembered for so many bytes, or, if SetRate changed it, for less
	Sites  []LeakSite `json:"sites"`  // the one with the most bytes first
}

// A LeakSite is the live blocks that were allocated by the same calls for the same
// owner.
type LeakSite struct {
	Blocks   int64     `json:"blocks"` // as in LeakReport
	Bytes    int64     `json:"bytes"`
	Smallest uintptr   `json:"smallest"` // bytes
	Largest  uintptr   `json:"largest"`
	Oldest   time.Time `json:"oldest"`
	Owner    string    `json:"owner,omitempty"` // see WithOwner
	Stack    []Frame   `json:"stack"`           // from the function that allocated outwards, 32 frames at most

	pcs []uintptr
}

// Report returns what is live, by the calls that allocated it. It costs a few hundred
// nanoseconds for each block that is remembered.
func (l *Leaks) Report() LeakReport {
	type sums struct {
		LeakSite
		blocks, bytes float64
	}
	sites := make(map[site]*sums)
	r := LeakReport{Rate: l.sampler.Load().rate}
	var blocks, bytes float64
	for _, b := range l.all() {
		s := sites[b.site]
		if s == nil {
			s = &sums{LeakSite: LeakSite{Smallest: b.size, Oldest: l.start.Add(b.since)}}
			sites[b.site] = s
		}
		weight := b.by.weight(b.size)
		r.Rate = max(r.Rate, b.by.rate)
		s.blocks += weight
		s.bytes += weight * float64(b.size)
		blocks += weight
		bytes += weight * float64(b.size)
		s.Smallest = min(s.Smallest, b.size)
		s.Largest = max(s.Largest, b.size)
	}
	r.Blocks, r.Bytes = int64(blocks+0.5), int64(bytes+0.5)
	for by, s := range sites {
		s.LeakSite.Blocks, s.LeakSite.Bytes = int64(s.blocks+0.5), int64(s.bytes+0.5)
		s.Owner, s.Stack, s.pcs = by.owner, by.stack.frames(), by.stack.pcs
		r.Sites = append(r.Sites, s.LeakSite)
	}
	slices.SortFunc(r.Sites, func(a, b LeakSite) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.String(), b.String()))
	})
	return r
}

// reportSites is how many sites the text of a report has.
const reportSites = 50

// String returns a line for the whole and one for each site, 50 at most, for example
//
//	12 KiB in 3 blocks are live:
//	  8 KiB in 2 blocks of 4 KiB: index.(*Index).grow (index.go:42), index.New (index.go:17)
//	  4 KiB in 1 block of 4 KiB: cache.Load (cache.go:9)
func (r LeakReport) String() string {
	if len(r.Sites) == 0 {
		return "nothing is live\n"
	}
	var text strings.Builder
	about, verb := "", "are"
	if r.Rate > 1 {
		about = "about "
	}
	if r.Blocks == 1 {
		verb = "is"
	}
	fmt.Fprintf(&text, "%s%s in %s %s live:\n", about, counter.FormatBytes(r.Bytes), number(r.Blocks, "block"), verb)
	for i, s := range r.Sites {
		if i == reportSites {
			var bytes int64
			for _, s := range r.Sites[i:] {
				bytes += s.Bytes
			}
			fmt.Fprintf(&text, "  %s%s at %s\n", about, counter.FormatBytes(bytes), number(int64(len(r.Sites)-i), "more site"))
			break
		}
		fmt.Fprintf(&text, "  %s%s\n", about, s)
	}
	return text.String()
}

// String returns the site's line in the text of a report.
func (s LeakSite) String() string {
	size := counter.FormatBytes(int64(s.Smallest))
	if s.Largest != s.Smallest {
		size += " to " + counter.FormatBytes(int64(s.Largest))
	}
	owner := ""
	if s.Owner != "" {
		owner = fmt.Sprintf(" of %q", s.Owner)
	}
	return fmt.Sprintf("%s in %s of %s%s: %s", counter.FormatBytes(s.Bytes), number(s.Blocks, "block"), size, owner, calls(s.Stack))
}

// callsShown is how many calls a line shows.
const callsShown = 4

// calls returns the innermost calls on one line.
func calls(stack []Frame) string {
	if len(stack) == 0 {
		return "by unknown calls"
	}
	var list []string
	for _, f := range stack[:min(len(stack), callsShown)] {
		list = append(list, fmt.Sprintf("%s (%s:%d)", path.Base(f.Function), path.Base(f.File), f.Line))
	}
	return strings.Join(list, ", ")
}

func number(n int64, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return fmt.Sprintf("%d %ss", n, of)
}

// WriteListing writes the report with all stacks, in the form of Go's heap profile
// with debug=1.
func (r LeakReport) WriteListing(w io.Writer) error {
	// The numbers of samples are estimates already, which "heapprofile" says to go tool pprof.
	_, err := fmt.Fprintf(w, "heap profile: %d: %d [%[1]d: %[2]d] @ heapprofile\n", r.Blocks, r.Bytes)
	for _, s := range r.Sites {
		if err != nil {
			return err
		}
		var text strings.Builder
		fmt.Fprintf(&text, "%d: %d [%[1]d: %[2]d] @", s.Blocks, s.Bytes)
		for _, pc := range s.pcs {
			fmt.Fprintf(&text, " %#x", pc)
		}
		for _, f := range s.Stack {
			fmt.Fprintf(&text, "\n#\t%s\t%s:%d", f.Function, f.File, f.Line)
		}
		text.WriteString("\n\n")
		_, err = io.WriteString(w, text.String())
	}
	return err
}
