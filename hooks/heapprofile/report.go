package heapprofile

import (
	"cmp"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/callers"
	"github.com/alloctrace/alloctrace/internal/text"
)

// A Report is what is live, by the calls that allocated it. It goes into JSON as it is.
type Report struct {
	Blocks int64  `json:"blocks"`                // an estimate, rounded, if Rate is more than 1
	Bytes  int64  `json:"bytes"`                 // likewise
	Error  int64  `json:"bytes_error,omitempty"` // the standard error of Bytes: two times in three, what is live differs by less
	Rate   int64  `json:"rate"`                  // one block was sampled for so many bytes, or, if SetRate changed it, for less
	Sites  []Site `json:"sites"`                 // the one with the most bytes first

	ForeignFrees int64         `json:"foreign_frees,omitempty"` // see Profile.ForeignFrees
	Foreign      []ForeignFree `json:"foreign,omitempty"`       // the first of them
}

// A Site is the live blocks that were allocated by the same calls for the same
// owner, those of Options.Skip aside.
type Site struct {
	Blocks   int64     `json:"blocks"` // as in Report
	Bytes    int64     `json:"bytes"`
	Error    int64     `json:"bytes_error,omitempty"`
	Smallest uintptr   `json:"smallest"` // bytes
	Largest  uintptr   `json:"largest"`
	Oldest   time.Time `json:"oldest"`

	Age   time.Duration `json:"age_ns"`          // of the oldest block, when the report was made
	Owner string        `json:"owner,omitempty"` // see Options
	Stack []Frame       `json:"stack"`           // from the function that allocated outwards, 32 frames at most; see Options.Skip
	Cut   bool          `json:"cut,omitempty"`   // the stack may have had more frames

	shown int     // how many calls String shows
	whole []whole // the same blocks by whole stacks
}

// A whole is live blocks that were allocated by the same calls, none left out.
type whole struct {
	stack         *stack
	blocks, bytes float64
	variance      float64 // of bytes
}

// add adds a block that was sampled.
func (w *whole) add(b *block) {
	weight := b.weight()
	w.blocks += weight
	w.bytes += weight * float64(b.size)
	w.variance += b.sums().variance
}

// sum adds what others are.
func (w *whole) sum(other whole) {
	w.blocks += other.blocks
	w.bytes += other.bytes
	w.variance += other.variance
}

// rounded returns w in whole numbers, and the standard error of its bytes.
func (w *whole) rounded() (blocks, bytes, bytesError int64) {
	return int64(w.blocks + 0.5), int64(w.bytes + 0.5), int64(math.Sqrt(w.variance) + 0.5)
}

// Report returns what is live, by the calls that allocated it, and the foreign frees. Names are
// valid UTF-8 of up to 1 KiB. It costs a few hundred nanoseconds for each block that is remembered.
func (p *Profile) Report() Report { return p.ReportOf(nil) }

// ReportOf is Report of the live blocks for which keep returns true, such as those that are older than an hour, or were allocated
// since some time. It calls keep for each block that is remembered, without a lock. A nil keep is all of them.
func (p *Profile) ReportOf(keep func(b Block) bool) Report { return p.report(p.kept(keep)) }

func (p *Profile) report(blocks []placed) Report {
	sites, now := make(map[origin]*Site), time.Since(p.start)
	r := Report{Rate: int64(p.Rate()), ForeignFrees: p.foreign.number(), Foreign: p.ForeignFrees()}
	var all whole
	for _, b := range blocks {
		at := p.originOf(&b.block)
		s := sites[at]
		if s == nil {
			s = &Site{
				Smallest: b.size, Oldest: p.start.Add(b.since), Age: max(0, now-b.since),
				Owner: text.Name(at.owner), Cut: len(at.stack.pcs) == maxFrames, whole: []whole{{stack: at.stack}},
			}
			sites[at] = s
		}
		r.Rate = max(r.Rate, b.sampler.rate)
		s.whole[0].add(&b.block)
		all.add(&b.block)
		s.Smallest = min(s.Smallest, b.size)
		s.Largest = max(s.Largest, b.size)
	}
	r.Blocks, r.Bytes, r.Error = all.rounded()
	byCalls := make(map[string]*Site)
	for at, s := range sites {
		s.Stack = at.stack.frames()
		calls := string(appendText(appendFrames(nil, s.Stack), at.owner))
		switch same := byCalls[calls]; {
		case len(s.Stack) == 0: // nobody knows who allocated them
			r.Sites = append(r.Sites, s.summed())
		case same != nil:
			same.add(s)
		default:
			byCalls[calls] = s
		}
	}
	for _, s := range byCalls {
		r.Sites = append(r.Sites, s.summed())
	}
	slices.SortFunc(r.Sites, func(a, b Site) int {
		return cmp.Or(cmp.Compare(b.Bytes, a.Bytes), cmp.Compare(a.String(), b.String()), slices.CompareFunc(a.Stack, b.Stack, Frame.compare))
	})
	distinguish(r.Sites)
	return r
}

// add adds the blocks of a site whose calls are the same but for those that are left out.
func (s *Site) add(other *Site) {
	s.Smallest, s.Largest = min(s.Smallest, other.Smallest), max(s.Largest, other.Largest)
	s.Age, s.Cut = max(s.Age, other.Age), s.Cut || other.Cut
	if other.Oldest.Before(s.Oldest) {
		s.Oldest = other.Oldest
	}
	s.whole = append(s.whole, other.whole...)
}

// summed returns s with its sums, and the whole stack with the most bytes first.
func (s *Site) summed() Site {
	slices.SortFunc(s.whole, func(a, b whole) int {
		return cmp.Or(cmp.Compare(b.bytes, a.bytes), slices.Compare(a.stack.pcs, b.stack.pcs))
	})
	var all whole
	for _, w := range s.whole {
		all.sum(w)
	}
	s.Blocks, s.Bytes, s.Error = all.rounded()
	return *s
}

// distinguish sets how many calls the lines of the first sites show. Lines with different owners
// differ in any case.
func distinguish(sites []Site) {
	sites = sites[:min(len(sites), reportSites)]
	owned := make(map[string][]int)
	for i, s := range sites {
		owned[s.Owner] = append(owned[s.Owner], i)
	}
	for _, of := range owned {
		stacks := make([][]Frame, len(of))
		for n, i := range of {
			stacks[n] = sites[i].Stack
		}
		for n, most := range shown(stacks) {
			sites[of[n]].shown = most
		}
	}
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
	r.writeSites(&report, "live")
	writeForeign(&report, r.Foreign, r.ForeignFrees)
	return report.String()
}

// writeSites writes the report of blocks that are what state says.
func (r Report) writeSites(report *strings.Builder, state string) {
	if len(r.Sites) == 0 {
		fmt.Fprintf(report, "nothing is %s\n", state)
		return
	}
	about, verb := "", "are"
	if r.Rate > 1 {
		about = "about "
	}
	if r.Blocks == 1 {
		verb = "is"
	}
	fmt.Fprintf(report, "%s%s in %s %s %s:\n", about, estimate(r.Bytes, r.Error), number(r.Blocks, "block"), verb, state)
	sites := slices.Clone(r.Sites)
	distinguish(sites) // as Report does, but it may come from JSON
	for i, s := range sites {
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

// String returns the site's line in the text of a report: with four calls, or as many more, up to 16, as tell it
// from the lines of the report that it is of.
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
	return fmt.Sprintf("%s in %s of %s%s: %s; %s%s old", estimate(s.Bytes, s.Error), number(s.Blocks, "block"), size, owner, calls(s.Stack, s.shown, s.Cut), oldest, age(s.Age))
}

// estimate returns bytes with their standard error, if there is one.
func estimate(bytes, standardError int64) string {
	if standardError == 0 {
		return counter.FormatBytes(bytes)
	}
	return counter.FormatBytes(bytes) + " ± " + counter.FormatBytes(standardError)
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

// WriteListing writes the report with all stacks, in the form of Go's heap profile
// with debug=1. Calls of Options.Skip are in it.
func (r Report) WriteListing(w io.Writer) error {
	// The numbers of samples are estimates already, which "heapprofile" says to go tool pprof.
	_, err := fmt.Fprintf(w, "heap profile: %d: %d [%[1]d: %[2]d] @ heapprofile\n", r.Blocks, r.Bytes)
	for _, s := range r.Sites {
		if err == nil && len(s.whole) == 0 { // as it comes from JSON
			err = writeListed(w, s.Blocks, s.Bytes, nil, s.Stack, s.Cut)
		}
		for _, of := range s.whole {
			if err == nil {
				pcs := of.stack.pcs
				blocks, bytes, _ := of.rounded()
				err = writeListed(w, blocks, bytes, pcs, framesOf(callers.Frames(pcs)), len(pcs) == maxFrames)
			}
		}
	}
	return err
}

func writeListed(w io.Writer, blocks, bytes int64, pcs []uintptr, stack []Frame, cut bool) error {
	var site strings.Builder
	fmt.Fprintf(&site, "%d: %d [%[1]d: %[2]d] @", blocks, bytes)
	for _, pc := range pcs {
		fmt.Fprintf(&site, " %#x", pc)
	}
	for _, f := range stack {
		fmt.Fprintf(&site, "\n#\t%s\t%s:%d", text.Line(f.Function, text.MaxName), text.Line(f.File, text.MaxName), f.Line)
	}
	if cut {
		site.WriteString("\n#\tand more")
	}
	site.WriteString("\n\n")
	_, err := io.WriteString(w, site.String())
	return err
}
