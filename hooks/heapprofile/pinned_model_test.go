package heapprofile

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// A pinProgram allocates in a Slab, and in the Pool that it stands on, and knows all live blocks.
type pinProgram struct {
	t       testing.TB
	r       *rand.Rand
	profile *Profile
	pool    *blockalloc.Pool
	slab    *blockalloc.Slab
	ways    []way
	least   uintptr // of the sizes
	live    []pin
	serial  int
}

// A way is an allocator that a program can allocate through.
type way struct {
	blockalloc.Allocator
	observed bool
	maxShift int // of the sizes
}

type pin struct {
	blockalloc.Block
	way    int
	site   string
	serial int
}

func newPinProgram(t testing.TB, seed uint64, rate int, unobserved bool) *pinProgram {
	g := &pinProgram{t: t, r: rand.New(rand.NewPCG(17, seed)), profile: New(Options{Rate: rate}), pool: new(blockalloc.Pool)}
	if g.r.IntN(2) == 0 {
		g.pool.MaxCached = -1
	}
	var err error
	if g.slab, err = blockalloc.NewSlab(g.pool, 4<<10<<g.r.IntN(5)); err != nil {
		t.Fatal(err)
	}
	observe := alloctrace.WithHooks(g.profile)
	g.ways = []way{{alloctrace.Wrap(g.slab, observe), true, 14}, {alloctrace.Wrap(g.pool, observe), true, 19}}
	if unobserved {
		g.ways = append(g.ways, way{g.slab, false, 14}, way{g.pool, false, 19})
	}
	return g
}

// A pinRequest is for a new block, or to change the size of one.
type pinRequest struct {
	old   blockalloc.Block
	l     blockalloc.Layout
	stays bool // or else nothing is done
}

func (q pinRequest) do(t testing.TB, a blockalloc.Allocator) (blockalloc.Block, bool) {
	var b blockalloc.Block
	var err error
	switch {
	case q.old.IsZero():
		b, err = a.Allocate(q.l)
	case q.stays:
		if b, err = blockalloc.Resize(a, q.old, q.l.Size); err != nil {
			return q.old, false
		}
	default:
		b, err = a.Reallocate(q.old, q.l.Size)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b, true
}

//go:noinline
func pinA(t testing.TB, a blockalloc.Allocator, q pinRequest) (blockalloc.Block, bool) {
	return q.do(t, a)
}

//go:noinline
func pinB(t testing.TB, a blockalloc.Allocator, q pinRequest) (blockalloc.Block, bool) {
	return q.do(t, a)
}

//go:noinline
func pinC(t testing.TB, a blockalloc.Allocator, q pinRequest) (blockalloc.Block, bool) {
	return q.do(t, a)
}

// pinSites are the functions above, by their names.
var pinSites = map[string]func(testing.TB, blockalloc.Allocator, pinRequest) (blockalloc.Block, bool){"pinA": pinA, "pinB": pinB, "pinC": pinC}

// ask makes a request of the block, which becomes the youngest.
func (g *pinProgram) ask(p pin, q pinRequest) (pin, bool) {
	p.site = []string{"pinA", "pinB", "pinC"}[g.r.IntN(3)]
	var ok bool
	p.Block, ok = pinSites[p.site](g.t, g.ways[p.way], q)
	g.serial++
	p.serial = g.serial
	return p, ok
}

func (g *pinProgram) size(way int) uintptr {
	return max(g.least, 1+uintptr(g.r.IntN(1<<g.r.IntN(g.ways[way].maxShift))))
}

// step allocates, most often, or changes or frees a block.
func (g *pinProgram) step(most int) {
	i := -1
	if len(g.live) > 0 {
		i = g.r.IntN(len(g.live))
	}
	switch op := g.r.IntN(8); {
	case i < 0 || op < 4 && len(g.live) < most:
		way := g.r.IntN(len(g.ways))
		p, _ := g.ask(pin{way: way}, pinRequest{l: blockalloc.Layout{Size: g.size(way), Align: 1 << g.r.IntN(g.ways[way].maxShift-3)}})
		g.live = append(g.live, p)
	case op < 5:
		p := g.live[i]
		if p, ok := g.ask(p, pinRequest{old: p.Block, l: blockalloc.Layout{Size: g.size(p.way)}, stays: g.r.IntN(2) == 0}); ok {
			g.live[i] = p
		}
	default:
		g.free(i)
	}
}

func (g *pinProgram) free(i int) {
	p := g.live[i]
	if err := g.ways[p.way].Free(p.Block); err != nil {
		g.t.Fatal(err)
	}
	g.live = slices.Delete(g.live, i, i+1)
}

func (g *pinProgram) close() {
	for len(g.live) > 0 {
		g.free(len(g.live) - 1)
	}
	if err := g.slab.Close(); err != nil {
		g.t.Error(err)
	}
	if err := g.pool.Close(); err != nil {
		g.t.Error(err)
	}
}

// A pinned is a span of a program, with what is free of it and which blocks are in it, the oldest first.
type pinned struct {
	free int64
	live []pin
}

// spans looks at each span and each block.
func (g *pinProgram) spans() (list []pinned) {
	has := func(s blockalloc.Span, addr uintptr) bool { return addr-s.Addr < s.Size }
	slabs := slices.Collect(g.slab.Spans)
	in := func(s blockalloc.Span) pinned {
		p := pinned{free: int64(s.Size)}
		for _, b := range g.live {
			if has(s, b.Addr()) {
				p.live = append(p.live, b)
			}
		}
		slices.SortFunc(p.live, func(a, b pin) int { return a.serial - b.serial })
		return p
	}
	for _, s := range slabs {
		p := in(s)
		for _, b := range p.live {
			p.free -= int64(b.Size())
		}
		list = append(list, p)
	}
	for s := range g.pool.Spans {
		p := in(s)
		for _, b := range p.live {
			if !slices.ContainsFunc(slabs, func(s blockalloc.Span) bool { return has(s, b.Addr()) }) {
				p.free -= int64(b.Size())
			}
		}
		for _, slab := range slabs {
			if has(s, slab.Addr) {
				p.free -= int64(slab.Size)
			}
		}
		list = append(list, p)
	}
	return list
}

// freeBytes returns what is free by the figures of the allocators.
func (g *pinProgram) freeBytes() int64 {
	pool, slab := g.pool.Stats(), g.slab.Stats()
	return pool.Carved - pool.LiveBytes + slab.BlockBytes - slab.LiveSlotBytes
}

// bySite returns the bytes of a report by the functions that have asked for the blocks.
func bySite(r PinnedReport, of func(PinnedSite) int64) map[string]int64 {
	sums := make(map[string]int64)
	for _, s := range r.Sites {
		name := s.Stack[1].Function
		sums[name[strings.LastIndexByte(name, '.')+1:]] += of(s)
	}
	return sums
}

// report is a report after a look at what must always hold.
func (g *pinProgram) report() PinnedReport {
	g.t.Helper()
	r, err := g.profile.Pinned(g.ways[0].Allocator, g.ways[1].Allocator)
	if err != nil {
		g.t.Fatal(err)
	}
	var known, in, sites, samples int64
	for _, s := range r.Sites {
		known, sites = known+s.Known, sites+s.Bytes
	}
	for _, a := range r.Allocators {
		in += a.Bytes
	}
	for _, s := range r.Samples {
		samples += s.Bytes
	}
	if free := g.freeBytes(); r.Bytes != free || in != free || r.Known+r.Unknown+r.Empty != free || known != r.Known {
		g.t.Errorf("%d bytes are free, the report has %d: %d known, %d unknown, %d empty; allocators have %d, sites %d", free, r.Bytes, r.Known, r.Unknown, r.Empty, in, known)
	}
	if off := samples - sites; off < -100 || off > 100 || r.Rate == 1 && off != 0 {
		g.t.Errorf("samples have %d bytes, sites %d", samples, sites)
	}
	return r
}
