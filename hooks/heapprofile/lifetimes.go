package heapprofile

import (
	"cmp"
	"fmt"
	"iter"
	"math"
	"path"
	"slices"
	"time"

	"github.com/alloctrace/alloctrace/internal/text"
)

// A Lifetime is how long the blocks live that were allocated by the same calls for the same owner, those of Options.Skip aside:
// estimates, unless Rate is 1. Blocks that are live have lived as long as their age, and will live longer: see [Lifetime.Share].
type Lifetime struct {
	Ended Lived `json:"ended"` // the blocks that were freed
	Live  Lived `json:"live"`  // those that are live, by age

	// Elsewhere is how many of the ended blocks another goroutine has freed than has allocated them, at least: one that has
	// started since may have the number of one that has ended. It is 0 on processors other than amd64 and arm64.
	Elsewhere int64 `json:"freed_elsewhere"`

	// OtherProcessor is how many of the ended blocks were freed on another processor than they were allocated on, by whatever
	// goroutine: one moves between the GOMAXPROCS processors of the Go runtime. It is 0 where the runtime cannot be asked: on
	// processors other than amd64 and arm64, under the race detector, and with the build tag alloctrace_nolinkname.
	OtherProcessor int64 `json:"freed_on_other_processor"`

	FreedBy []FreedBy `json:"freed_by,omitempty"` // the calls that have freed most first, of the first few that have freed any

	Owner string  `json:"owner,omitempty"` // see Options
	Stack []Frame `json:"stack"`           // from the function that allocated outwards, 32 frames at most; see Options.Skip
	Cut   bool    `json:"cut,omitempty"`   // the stack may have had more frames
}

// Lived is blocks by how long they have lived.
type Lived struct {
	Blocks int64   `json:"blocks"`
	Bytes  int64   `json:"bytes"`
	Error  int64   `json:"bytes_error,omitempty"` // the standard error of Bytes
	Times  []Times `json:"times"`                 // from the shortest to the longest, without those that no block has
}

// Times is the blocks that have lived at most so long, and longer than half of that. The first class goes up to a
// microsecond, the last, of 2^40 microseconds, has all that is longer than half of that, which is six days.
type Times struct {
	Most   time.Duration `json:"most_ns"`
	Blocks int64         `json:"blocks"`
	Bytes  int64         `json:"bytes"`
}

// FreedBy is calls that have freed blocks.
type FreedBy struct {
	Blocks int64   `json:"blocks"`
	Stack  []Frame `json:"stack"` // from the function that freed outwards
}

// Lifetimes returns how long blocks live, by the calls that allocated them, those with the most bytes first. A reallocation ends a
// block, and begins another. It returns nil unless Options.Lifetimes is set. It costs a few hundred nanoseconds for each block
// that is remembered.
func (p *Profile) Lifetimes() []Lifetime {
	if p.live.end == nil {
		return nil
	}
	var list []*lives
	byCalls, known := make(map[string]*lives), make(map[origin]*lives)
	of := func(at origin) *lives {
		if l := known[at]; l != nil {
			return l
		}
		stack := at.stack.frames()
		calls := string(appendText(appendFrames(nil, stack), at.owner))
		l := byCalls[calls]
		if l == nil {
			l = &lives{freedBy: make(map[string]*FreedBy)}
			l.Owner, l.Stack, l.Cut = text.Name(at.owner), stack, len(at.stack.pcs) == maxFrames
			byCalls[calls], list = l, append(list, l)
		}
		known[at] = l
		return l
	}
	for s := range p.sites.all() {
		if all := s.endings.Load(); all != nil {
			of(origin{s.stack, s.owner}).ends(all)
		}
	}
	now := time.Since(p.start)
	for _, b := range p.blocks() {
		live := &of(p.originOf(&b.block)).live
		sums := b.sums()
		live.add(timeClass(now-b.since), sums.blocks, sums.bytes)
		live.variance += sums.variance
	}
	lifetimes := make([]Lifetime, len(list))
	for i, l := range list {
		lifetimes[i] = l.sum()
	}
	slices.SortFunc(lifetimes, func(a, b Lifetime) int {
		return cmp.Or(cmp.Compare(b.Ended.Bytes+b.Live.Bytes, a.Ended.Bytes+a.Live.Bytes),
			slices.CompareFunc(a.Stack, b.Stack, Frame.compare), cmp.Compare(a.Owner, b.Owner))
	})
	return lifetimes
}

// lives is a Lifetime that is being summed up.
type lives struct {
	Lifetime
	ended, live               histogram
	elsewhere, otherProcessor int64

	freedBy map[string]*FreedBy
}

type histogram struct {
	blocks, bytes [timeClasses]int64
	variance      float64 // of the bytes
}

func (h *histogram) add(class int, blocks, bytes int64) {
	h.blocks[class] += blocks
	h.bytes[class] += bytes
}

// lived returns h without what is empty.
func (h *histogram) lived() (l Lived) {
	var blocks int64
	for class := range h.blocks {
		if h.blocks[class] > 0 {
			blocks += h.blocks[class]
			l.Bytes += h.bytes[class]
			l.Times = append(l.Times, Times{longest(class), rounded(h.blocks[class]), h.bytes[class]})
		}
	}
	l.Blocks = rounded(blocks)
	l.Error = (&liveSums{variance: h.variance}).standardError()
	return l
}

// ends adds the endings of a site.
func (l *lives) ends(all *endings) {
	for class := range all.blocks {
		l.ended.add(class, all.blocks[class].Load(), all.bytes[class].Load())
	}
	l.ended.variance += all.variance.load()
	l.elsewhere += all.elsewhere.Load()
	l.otherProcessor += all.otherProcessor.Load()
	for i := range all.by {
		by := all.by[i].Load()
		if by == nil {
			break
		}
		stack := by.stack.frames()
		calls := string(appendFrames(nil, stack))
		if l.freedBy[calls] == nil {
			l.freedBy[calls] = &FreedBy{Stack: stack}
		}
		l.freedBy[calls].Blocks += by.blocks.Load()
	}
}

func (l *lives) sum() Lifetime {
	l.Ended, l.Live = l.ended.lived(), l.live.lived()
	l.Elsewhere, l.OtherProcessor = rounded(l.elsewhere), rounded(l.otherProcessor)
	for _, by := range l.freedBy {
		if by.Blocks = rounded(by.Blocks); by.Blocks > 0 {
			l.FreedBy = append(l.FreedBy, *by)
		}
	}
	slices.SortFunc(l.FreedBy, func(a, b FreedBy) int {
		return cmp.Or(cmp.Compare(b.Blocks, a.Blocks), slices.CompareFunc(a.Stack, b.Stack, Frame.compare))
	})
	return l.Lifetime
}

// Share returns the share of blocks that live at most d, from 0 to 1, and NaN if there are none. Blocks that are live count as
// far as their age goes, by a life table: so many that have just been allocated say nothing. It takes d down to a power of two microseconds.
func (l Lifetime) Share(d time.Duration) float64 {
	share := math.NaN()
	for most, upTo := range l.shares() {
		if most > d {
			break
		}
		share = upTo
	}
	if l.Ended.Blocks+l.Live.Blocks > 0 && math.IsNaN(share) {
		return 0
	}
	return share
}

// Quantile returns how long the given share of blocks lives at most, a power of two microseconds. It is not known, and ok is
// false, if too many are live.
func (l Lifetime) Quantile(share float64) (d time.Duration, ok bool) {
	for most, upTo := range l.shares() {
		if upTo >= share {
			return most, true
		}
	}
	return 0, false
}

// shares yields what share of the blocks lives at most so long, for each class of time up to the longest that there is.
func (l Lifetime) shares() iter.Seq2[time.Duration, float64] {
	return func(yield func(most time.Duration, upTo float64) bool) {
		ended, live := l.Ended.Times, l.Live.Times
		atRisk := float64(l.Ended.Blocks + l.Live.Blocks)
		alive := 1.0
		for class := 0; class < timeClasses && len(ended)+len(live) > 0; class++ {
			most := longest(class)
			end, censored := takeClass(&ended, most), takeClass(&live, most)
			if risk := atRisk - censored/2; end > 0 && risk > 0 { // those that are live were at risk for half of the time
				alive *= max(0, 1-end/risk)
			}
			atRisk -= end + censored
			if !yield(most, 1-alive) {
				return
			}
		}
	}
}

// takeClass takes the blocks of a class from the front of a list, if it is there.
func takeClass(times *[]Times, most time.Duration) (blocks float64) {
	if len(*times) > 0 && (*times)[0].Most <= most {
		blocks, *times = float64((*times)[0].Blocks), (*times)[1:]
	}
	return blocks
}

// String returns a line, for example
//
//	64 MiB in 16384 blocks have ended, 4 KiB in 1 block is live: index.(*Index).query (index.go:42), main.run (main.go:7);
//	half live up to 64µs, 99% up to 1.024ms; 16384 were freed by index.(*Index).query (index.go:50)
func (l Lifetime) String() string {
	line := fmt.Sprintf("%s in %s have ended, %s in %s are live: %s", estimate(l.Ended.Bytes, l.Ended.Error), number(l.Ended.Blocks, "block"),
		estimate(l.Live.Bytes, l.Live.Error), number(l.Live.Blocks, "block"), calls(l.Stack, callsShown, l.Cut))
	if l.Owner != "" {
		line += fmt.Sprintf(" of %q", l.Owner)
	}
	half, ok := l.Quantile(0.5)
	if ok {
		line += fmt.Sprintf("; half live up to %v", half)
		if most, ok := l.Quantile(0.99); ok {
			line += fmt.Sprintf(", 99%% up to %v", most)
		}
	}
	if len(l.FreedBy) > 0 {
		by := l.FreedBy[0]
		line += fmt.Sprintf("; %d were freed by %s", by.Blocks, calls(by.Stack[:min(1, len(by.Stack))], 1, false))
	}
	if l.Elsewhere > 0 {
		line += fmt.Sprintf(", %d by another goroutine", l.Elsewhere)
	}
	if l.OtherProcessor > 0 {
		line += fmt.Sprintf(", %d on another processor", l.OtherProcessor)
	}
	return line
}

// Advice says what the lifetimes suggest, "" if that is nothing: where 99 % of the blocks live up to a millisecond, and are freed by
// the function that has allocated them, memory that goes back all at once costs less. It is "" where fewer than 100 blocks have ended, or
// have been sampled of those that have.
func (l Lifetime) Advice() string {
	const few = 100
	most, ok := l.Quantile(0.99)
	seen := float64(l.Ended.Bytes) / float64(max(1, l.Ended.Error)) // squared, how many blocks of one size make this error; many if it is 0
	if !ok || most > longest(10) || l.Ended.Blocks < few || l.Ended.Error > 0 && seen*seen < few || l.Elsewhere > 0 || len(l.Stack) == 0 {
		return ""
	}
	function := l.Stack[0].Function
	var byIt int64
	for _, by := range l.FreedBy {
		if len(by.Stack) > 0 && by.Stack[0].Function == function {
			byIt += by.Blocks
		}
	}
	if float64(byIt) < 0.99*float64(l.Ended.Blocks) {
		return ""
	}
	return fmt.Sprintf("99%% live up to %v, and %s frees what it allocates: a blockalloc.Bump or Scoped gives all back at once",
		most, text.Line(path.Base(function), text.MaxName))
}
