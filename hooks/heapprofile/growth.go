package heapprofile

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/text"
)

// A Mark is what was live at a moment, to compare what is live later with. [Profile.Mark] makes one. It takes some 100 bytes for
// each site that had live blocks. Several goroutines may use it at once.
type Mark struct {
	of     *Profile
	at     time.Duration // since Profile.start
	serial uint64        // of the last block before it
	live   map[origin]liveSums
}

// Mark returns what is live now. It costs a few hundred nanoseconds for each block that is remembered.
func (p *Profile) Mark() *Mark {
	m := &Mark{of: p, at: time.Since(p.start), serial: p.serial.Load(), live: make(map[origin]liveSums)}
	for _, b := range p.blocks() {
		if b.serial <= m.serial {
			at := p.originOf(&b.block)
			sums := m.live[at]
			sums.add(b.sums(), 1)
			m.live[at] = sums
		}
	}
	return m
}

// Growth is how what is live has changed since a [Mark]: estimates, unless Rate is 1. What was allocated since and freed again
// is not in it: see [Profile.Lifetimes] and [Sample].
type Growth struct {
	From  time.Time    `json:"from"`
	To    time.Time    `json:"to"`
	Total SiteGrowth   `json:"total"` // of all sites, without calls
	Sites []SiteGrowth `json:"sites"` // the one that has grown most first
}

// A SiteGrowth is how the live blocks have changed that were allocated by the same calls for the same owner, those of Options.Skip
// aside. A site that grows, and of which nothing is freed, is a leak, or has not been full yet. One that frees as much as it
// allocates is a cache. One whose newest block is old is used no more.
type SiteGrowth struct {
	Before Amount `json:"before"`                // was live at the mark
	Freed  Amount `json:"freed"`                 // of that is not live any more
	Added  Amount `json:"added"`                 // was allocated since, and is live
	Live   Amount `json:"live"`                  // Before - Freed + Added
	Error  int64  `json:"bytes_error,omitempty"` // the standard error of Live.Bytes - Before.Bytes

	Oldest time.Time `json:"oldest,omitzero"` // of the live blocks
	Newest time.Time `json:"newest,omitzero"`

	Owner string  `json:"owner,omitempty"` // see Options
	Stack []Frame `json:"stack,omitempty"` // from the function that allocated outwards, 32 frames at most; see Options.Skip
	Cut   bool    `json:"cut,omitempty"`   // the stack may have had more frames
}

// An Amount is a number of blocks, and their bytes.
type Amount struct {
	Blocks int64 `json:"blocks"`
	Bytes  int64 `json:"bytes"`
}

// growing is a SiteGrowth that is being summed up.
type growing struct {
	before, kept, live, freed, added liveSums // kept were live at the mark, and are
	oldest, newest                   time.Duration
	origin                           origin
	stack                            []Frame
}

// Growth returns how what is live has changed since the mark. It may be called several times. Blocks that were being allocated when
// the mark was made count as allocated since.
func (m *Mark) Growth() Growth {
	p, now := m.of, time.Since(m.of.start)
	sites := make(map[string]*growing)
	of := func(at origin) *growing {
		stack := at.stack.frames()
		calls := string(appendText(appendFrames(nil, stack), at.owner))
		if sites[calls] == nil {
			sites[calls] = &growing{origin: at, stack: stack, oldest: now}
		}
		return sites[calls]
	}
	known := make(map[origin]*growing)
	for at, sums := range m.live {
		known[at] = of(at)
		known[at].before.add(sums, 1)
	}
	for _, b := range p.blocks() {
		at := p.originOf(&b.block)
		g := known[at]
		if g == nil {
			g = of(at)
			known[at] = g
		}
		g.live.add(b.sums(), 1)
		g.oldest, g.newest = min(g.oldest, b.since), max(g.newest, b.since)
		if b.serial <= m.serial {
			g.kept.add(b.sums(), 1)
		}
	}
	growth := Growth{From: p.start.Add(m.at), To: p.start.Add(now), Sites: []SiteGrowth{}}
	total := growing{oldest: now}
	for _, g := range sites {
		g.split()
		growth.Sites = append(growth.Sites, g.growth(p))
		total.add(g)
	}
	growth.Total = total.growth(p)
	slices.SortFunc(growth.Sites, func(a, b SiteGrowth) int {
		return cmp.Or(cmp.Compare(b.Change(), a.Change()), cmp.Compare(b.Added.Bytes, a.Added.Bytes),
			slices.CompareFunc(a.Stack, b.Stack, Frame.compare), cmp.Compare(a.Owner, b.Owner))
	})
	return growth
}

// split finds what was freed and what was added.
func (g *growing) split() {
	g.freed = g.before
	g.freed.add(g.kept, -1)
	if g.freed.bytes < 0 || g.freed.blocks < 0 { // kept has a block that was not yet remembered at the mark
		g.freed = liveSums{}
	}
	g.added = g.live
	g.added.add(g.before, -1)
	g.added.add(g.freed, 1)
	g.added.variance = g.live.variance - g.kept.variance
}

func (g *growing) add(other *growing) {
	g.before.add(other.before, 1)
	g.live.add(other.live, 1)
	g.freed.add(other.freed, 1)
	g.added.add(other.added, 1)
	g.oldest, g.newest = min(g.oldest, other.oldest), max(g.newest, other.newest)
}

func (g *growing) growth(p *Profile) SiteGrowth {
	change := liveSums{variance: g.freed.variance + g.added.variance}
	s := SiteGrowth{
		Before: g.before.amount(), Freed: g.freed.amount(), Added: g.added.amount(), Live: g.live.amount(), Error: change.standardError(),
		Owner: text.Name(g.origin.owner), Stack: g.stack, Cut: len(g.stack) > 0 && len(g.origin.stack.pcs) == maxFrames,
	}
	if g.live.bytes > 0 {
		s.Oldest, s.Newest = p.start.Add(g.oldest), p.start.Add(g.newest)
	}
	return s
}

func (s liveSums) amount() Amount { return Amount{rounded(s.blocks), s.bytes} }

// Change returns by how many bytes more is live than at the mark.
func (s SiteGrowth) Change() int64 { return s.Live.Bytes - s.Before.Bytes }

// String returns a line for the whole and one for each site that has changed, 50 at most, for example
//
//	1 MiB more is live than 10m0s before: of 3 MiB then 1 MiB freed, 2 MiB added in 20 blocks, the newest 1s ago
//	  +1 MiB: of 2 MiB then nothing freed, 1 MiB added in 16 blocks, the newest 2s ago: index.(*Index).grow (index.go:42)
//	  +0 B: of 1 MiB then 1 MiB freed, 1 MiB added in 4 blocks, the newest 1s ago: cache.Load (cache.go:9)
func (g Growth) String() string {
	var lines strings.Builder
	more := "more"
	if g.Total.Change() < 0 {
		more = "less"
	}
	fmt.Fprintf(&lines, "%s %s is live than %s before: %s\n", estimate(max(g.Total.Change(), -g.Total.Change()), g.Total.Error), more, age(g.To.Sub(g.From)), g.Total.parts(g.To))
	changed := make([]SiteGrowth, 0, len(g.Sites))
	for _, s := range g.Sites {
		if s.Freed.Bytes > 0 || s.Added.Bytes > 0 {
			changed = append(changed, s)
		}
	}
	listed := changed[:min(len(changed), reportSites)]
	stacks := make([][]Frame, len(listed))
	for i, s := range listed {
		stacks[i] = s.Stack
	}
	for i, most := range shown(stacks) {
		s := listed[i]
		sign, owner := "+", ""
		if s.Change() < 0 {
			sign = "-"
		}
		if s.Owner != "" {
			owner = fmt.Sprintf(" of %q", s.Owner)
		}
		fmt.Fprintf(&lines, "  %s%s: %s%s: %s\n", sign, estimate(max(s.Change(), -s.Change()), s.Error), s.parts(g.To), owner, calls(s.Stack, most, s.Cut))
	}
	if more := changed[len(listed):]; len(more) > 0 {
		fmt.Fprintf(&lines, "  and %s\n", number(int64(len(more)), "more site"))
	}
	return lines.String()
}

// parts says what a change is made of.
func (s SiteGrowth) parts(now time.Time) string {
	bytes := func(a Amount) string {
		if a.Bytes == 0 {
			return "nothing"
		}
		return counter.FormatBytes(a.Bytes)
	}
	was := "nothing then"
	if s.Before.Bytes > 0 {
		was = fmt.Sprintf("of %s then %s freed", bytes(s.Before), bytes(s.Freed))
	}
	if s.Added.Bytes == 0 {
		return was + ", nothing added"
	}
	return fmt.Sprintf("%s, %s added in %s, the newest %s ago", was, bytes(s.Added), number(s.Added.Blocks, "block"), age(max(0, now.Sub(s.Newest))))
}
