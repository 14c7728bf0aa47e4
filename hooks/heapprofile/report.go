package heapprofile

import (
	"cmp"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/text"
)

// A Report is what is live, by the calls that allocated it. It goes into JSON as it is.
type Report struct {
	Blocks int64  `json:"blocks"` // an estimate, rounded, if Rate is more than 1
	Bytes  int64  `json:"bytes"`  // likewise
	Rate   int64  `json:"rate"`   // one block was sampled for so many bytes, or, if SetRate changed it, for less
	Sites  []Site `json:"sites"`  // the one with the most bytes first

	ForeignFrees int64         `json:"foreign_frees,omitempty"` // see Profile.ForeignFrees
	Foreign      []ForeignFree `json:"foreign,omitempty"`       // the first of them
}

// A Site is the live blocks that were allocated by the same calls for the same
// owner.
type Site struct {
	Blocks   int64     `json:"blocks"` // as in Report
	Bytes    int64     `json:"bytes"`
	Smallest uintptr   `json:"smallest"` // bytes
	Largest  uintptr   `json:"largest"`
	Oldest   time.Time `json:"oldest"`

	Age   time.Duration `json:"age_ns"`          // of the oldest block, when the report was made
	Owner string        `json:"owner,omitempty"` // see Options
	Stack []Frame       `json:"stack"`           // from the function that allocated outwards, 32 frames at most
	Cut   bool          `json:"cut,omitempty"`   // the stack may have had more frames

	pcs []uintptr
}

// Report returns what is live, by the calls that allocated it, and the foreign frees. Names are
// valid UTF-8 of up to 1 KiB. It costs a few hundred nanoseconds for each block that is remembered.
func (p *Profile) Report() Report {
	type key struct {
		stack *stack
		owner string
	}
	type sums struct {
		Site
		blocks, bytes float64
	}
	sites, now := make(map[key]*sums), time.Since(p.start)
	r := Report{Rate: int64(p.Rate()), ForeignFrees: p.foreign.number(), Foreign: p.ForeignFrees()}
	var blocks, bytes float64
	for _, b := range p.blocks() {
		at := key{b.site.stack, p.ownerOf(&b.block)}
		s := sites[at]
		if s == nil {
			s = &sums{Site: Site{Smallest: b.size, Oldest: p.start.Add(b.since), Age: max(0, now-b.since)}}
			sites[at] = s
		}
		r.Rate = max(r.Rate, b.sampler.rate)
		s.blocks += b.weight()
		s.bytes += b.weight() * float64(b.size)
		blocks += b.weight()
		bytes += b.weight() * float64(b.size)
		s.Smallest = min(s.Smallest, b.size)
		s.Largest = max(s.Largest, b.size)
	}
	r.Blocks, r.Bytes = int64(blocks+0.5), int64(bytes+0.5)
	for at, s := range sites {
		s.Site.Blocks, s.Site.Bytes = int64(s.blocks+0.5), int64(s.bytes+0.5)
		s.Owner, s.Stack, s.pcs = text.Name(at.owner), at.stack.frames(), at.stack.pcs
		s.Cut = len(s.pcs) == maxFrames
		r.Sites = append(r.Sites, s.Site)
	}
	slices.SortFunc(r.Sites, func(a, b Site) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.String(), b.String()))
	})
	return r
}

// reportSites is how many sites the text of a report has.
const reportSites = 50

// String returns a line for the whole and one for each site, 50 at most, and then likewise the
// foreign frees if there are any, for example
//
//	12 KiB in 3 blocks are live:
//	  8 KiB in 2 blocks of 4 KiB: index.(*Index).grow (index.go:42), index.New (index.go:17); the oldest is 3.2s old
//	  4 KiB in 1 block of 4 KiB: cache.Load (cache.go:9), cache.Warm (cache.go:5), app.start (app.go:7), main.run (main.go:31) and 2 more calls; 1h12m old
func (r Report) String() string {
	var report strings.Builder
	r.writeSites(&report)
	writeForeign(&report, r.Foreign, r.ForeignFrees)
	return report.String()
}

func (r Report) writeSites(report *strings.Builder) {
	if len(r.Sites) == 0 {
		report.WriteString("nothing is live\n")
		return
	}
	about, verb := "", "are"
	if r.Rate > 1 {
		about = "about "
	}
	if r.Blocks == 1 {
		verb = "is"
	}
	fmt.Fprintf(report, "%s%s in %s %s live:\n", about, counter.FormatBytes(r.Bytes), number(r.Blocks, "block"), verb)
	for i, s := range r.Sites {
		if i == reportSites {
			var bytes int64
			for _, s := range r.Sites[i:] {
				bytes += s.Bytes
			}
			fmt.Fprintf(report, "  %s%s at %s\n", about, counter.FormatBytes(bytes), number(int64(len(r.Sites)-i), "more site"))
			break
		}
		fmt.Fprintf(report, "  %s%s\n", about, s)
	}
}

// String returns the site's line in the text of a report.
func (s Site) String() string {
	size := counter.FormatBytes(int64(s.Smallest))
	if s.Largest != s.Smallest {
		size += " to " + counter.FormatBytes(int64(s.Largest))
	}
	owner := ""
	if s.Owner != "" {
		owner = fmt.Sprintf(" of %q", s.Owner)
	}
	oldest := "the oldest is "
	if s.Blocks == 1 {
		oldest = ""
	}
	return fmt.Sprintf("%s in %s of %s%s: %s; %s%s old", counter.FormatBytes(s.Bytes), number(s.Blocks, "block"), size, owner, calls(s.Stack, s.Cut), oldest, age(s.Age))
}

// age returns d rounded, as nobody needs it exactly.
func age(d time.Duration) string {
	for unit := time.Duration(1); unit < time.Minute; unit *= 10 {
		if d < 1000*unit {
			return d.Round(unit).String()
		}
	}
	return strings.TrimSuffix(d.Round(time.Minute).String(), "0s")
}

// callsShown is how many calls a line shows.
const callsShown = 4

// calls returns the innermost calls on one line, and how many there are besides: more than that
// if the stack was cut.
func calls(stack []Frame, cut bool) string {
	if len(stack) == 0 {
		return "by unknown calls"
	}
	var list []string
	for _, f := range stack[:min(len(stack), callsShown)] {
		list = append(list, fmt.Sprintf("%s (%s:%d)", text.Line(path.Base(f.Function), text.MaxName), text.Line(path.Base(f.File), text.MaxName), f.Line))
	}
	line := strings.Join(list, ", ")
	switch more := int64(len(stack) - len(list)); {
	case cut:
		line += fmt.Sprintf(" and %d or more other calls", more)
	case more > 0:
		line += " and " + number(more, "more call")
	}
	return line
}

func number(n int64, of string) string {
	if n == 1 {
		return "1 " + of
	}
	return fmt.Sprintf("%d %ss", n, of)
}

// WriteListing writes the report with all stacks, in the form of Go's heap profile
// with debug=1.
func (r Report) WriteListing(w io.Writer) error {
	// The numbers of samples are estimates already, which "heapprofile" says to go tool pprof.
	_, err := fmt.Fprintf(w, "heap profile: %d: %d [%[1]d: %[2]d] @ heapprofile\n", r.Blocks, r.Bytes)
	for _, s := range r.Sites {
		if err != nil {
			return err
		}
		var site strings.Builder
		fmt.Fprintf(&site, "%d: %d [%[1]d: %[2]d] @", s.Blocks, s.Bytes)
		for _, pc := range s.pcs {
			fmt.Fprintf(&site, " %#x", pc)
		}
		for _, f := range s.Stack {
			fmt.Fprintf(&site, "\n#\t%s\t%s:%d", text.Line(f.Function, text.MaxName), text.Line(f.File, text.MaxName), f.Line)
		}
		if s.Cut {
			site.WriteString("\n#\tand more")
		}
		site.WriteString("\n\n")
		_, err = io.WriteString(w, site.String())
	}
	return err
}
