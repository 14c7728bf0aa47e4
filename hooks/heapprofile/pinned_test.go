package heapprofile

import (
	"errors"
	"maps"
	"math"
	"slices"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// TestPinned compares random programs with a look at each span and each block: at a rate of 1, the free bytes of each span are those
// of its oldest live block, of which some are not known.
func TestPinned(t *testing.T) {
	programs := uint64(100)
	if testing.Short() {
		programs = 25
	}
	var sum PinnedReport
	for seed := range programs {
		g := newPinProgram(t, seed, 1, seed%2 == 0)
		for step := range 600 {
			g.step(150)
			if step%40 != 0 && step != 599 {
				continue
			}
			want := make(map[string]int64)
			var unknown, empty int64
			for _, s := range g.spans() {
				if s.free == 0 {
					continue
				}
				to := &unknown
				if len(s.live) == 0 {
					to = &empty
				}
				for _, b := range s.live {
					if g.ways[b.way].observed {
						want[b.site] += s.free
						to = new(int64)
						break
					}
				}
				*to += s.free
			}
			r := g.report()
			for name, got := range map[string]map[string]int64{
				"Bytes": bySite(r, func(s PinnedSite) int64 { return s.Bytes }),
				"Known": bySite(r, func(s PinnedSite) int64 { return s.Known }),
			} {
				if !maps.Equal(got, want) {
					t.Errorf("seed %d, step %d: %s are %v, want %v", seed, step, name, got, want)
				}
			}
			if r.Unknown != unknown || r.Empty != empty || r.Error != 0 || r.Rate != 1 {
				t.Errorf("seed %d, step %d: %d bytes are unknown and %d empty, ± %d, want %d and %d", seed, step, r.Unknown, r.Empty, r.Error, unknown, empty)
			}
			sum.Known, sum.Unknown, sum.Empty = sum.Known+r.Known, sum.Unknown+r.Unknown, sum.Empty+r.Empty
		}
		g.close()
		if t.Failed() {
			break
		}
	}
	if sum.Known == 0 || sum.Unknown == 0 || sum.Empty == 0 {
		t.Errorf("the programs have not all that there can be: %+v", sum)
	}
}

// An off is how far estimates are off in many programs, and how far they say that they may be.
type off struct{ sum, variance float64 }

func (o *off) add(estimate int64, want float64, standardError int64) {
	o.sum += float64(estimate) - want
	o.variance += float64(standardError) * float64(standardError)
}

// TestPinnedSampled: over many programs, the estimates are right for what their comment says, within the errors that they state. What is
// no fault and yet far off is not so three times.
func TestPinnedSampled(t *testing.T) {
	programs := uint64(300)
	if testing.Short() {
		programs = 100
	}
	for _, rate := range []int{500, 2000} {
		var failed string
		for range 3 {
			offs := make(map[string]*off)
			for seed := range programs {
				comparePinned(t, seed, rate, offs)
			}
			failed = ""
			for name, o := range offs {
				standardErrors := o.sum / math.Sqrt(o.variance)
				t.Logf("rate %d, %s: off by %.2f standard errors", rate, name, standardErrors)
				if math.Abs(standardErrors) > 4 {
					failed = name
				}
			}
			if failed == "" {
				break
			}
		}
		if failed != "" {
			t.Errorf("rate %d: %s is off", rate, failed)
		}
	}
}

// comparePinned adds what a program's estimates are off by.
func comparePinned(t *testing.T, seed uint64, rate int, offs map[string]*off) {
	g := newPinProgram(t, seed, rate, false)
	defer g.close()
	g.least = 256 // one byte that stands for a run would be as seldom as it would be far off
	for range 400 {
		g.step(150)
	}
	want := map[string]float64{"all": 0, "pinA": 0, "pinB": 0, "pinC": 0}
	share := func(from, to float64) float64 { return math.Exp(-from/float64(rate)) - math.Exp(-to/float64(rate)) }
	for _, s := range g.spans() {
		var all, older float64
		for _, b := range s.live {
			all += float64(b.Size())
		}
		if all == 0 {
			continue
		}
		want["all"] += float64(s.free)
		for _, b := range s.live {
			want[b.site] += float64(s.free) * share(older, older+float64(b.Size())) / share(0, all)
			older += float64(b.Size())
		}
	}
	r := g.report()
	got, squares := bySite(r, func(s PinnedSite) int64 { return s.Bytes }), bySite(r, func(s PinnedSite) int64 { return s.Error * s.Error })
	for name := range want {
		if offs[name] == nil {
			offs[name] = new(off)
		}
		if name == "all" {
			var sum int64
			for _, bytes := range got {
				sum += bytes
			}
			offs[name].add(sum, want[name], r.Error)
		} else {
			offs[name].add(got[name], want[name], int64(math.Sqrt(float64(squares[name]))))
		}
	}
}

// TestPinnedOnAverage samples in all ways that there are, each as often as it is likely: the estimates are right on average. So is the
// square of the error of their sum. Those of sites are right within 30 %.
func TestPinnedOnAverage(t *testing.T) {
	at := func(addr, size, free uintptr) span {
		return span{Span: blockalloc.Span{Addr: addr, Size: size, Free: free}}
	}
	sites := []*site{{stack: new(stack)}, {stack: new(stack)}, {stack: new(stack)}}
	blocks := []struct {
		addr, size uintptr
		site       int
	}{ // the oldest first
		{0x10000, 64, 0}, {0x14000, 512, 1}, {0x20000, 4096, 2}, {0x10040, 64, 1}, {0x10080, 64, 0}, {0x14200, 512, 0}, {0x30000, 256, 2}, {0x22000, 4096, 0}, {0x100c0, 64, 2},
	}
	for _, rate := range []int64{50, 1000, 1 << 20} {
		p := New(Options{Rate: int(rate)})
		sampler := newSampler(rate)
		// A run with two blocks of a Slab and two others, a second run, and one without live blocks.
		original := []span{
			at(0x10000, 0x14000, 0xa000), at(0x10000, 0x4000, 0x4000-4*64), at(0x14000, 0x4000, 0x4000-2*512),
			at(0x30000, 0x10000, 0x10000-256), at(0x40000, 0x10000, 0x10000),
		}
		var free float64
		for _, s := range original[:4] {
			free += float64(s.Free)
		}
		want := make([]float64, len(sites)+1) // and the sum
		for i, in := range [][]int{{0, 1, 2, 3, 4, 5, 7, 8}, {0, 3, 4, 8}, {1, 5}, {6}} {
			var older, all float64
			for _, b := range in {
				all += float64(blocks[b].size)
			}
			for _, b := range in {
				share := math.Exp(-older/float64(rate)) * sampler.probability(float64(blocks[b].size)) / sampler.probability(all)
				want[blocks[b].site] += float64(original[i].Free) * share
				older += float64(blocks[b].size)
			}
		}
		want[len(sites)] = free
		mean, square, stated := make([]float64, len(want)), make([]float64, len(want)), make([]float64, len(want))
		for sampled := range 1 << len(blocks) {
			chance := 1.0
			var known []placed
			for i, b := range blocks {
				p := sampler.probability(float64(b.size))
				if sampled>>i&1 == 0 {
					chance *= 1 - p
					continue
				}
				chance *= p
				known = append(known, placed{b.addr, block{size: b.size, by: new(part), site: sites[b.site], serial: uint64(i), sampler: &sampler}})
			}
			c, spans := newCharges(p), append([]span(nil), original...)
			var r PinnedReport
			nest(spans)
			c.chargeAll(&r, spans, known)
			if r.Bytes != int64(free)+0x10000 || r.Empty != 0x10000 || r.Known+r.Unknown != int64(free) {
				t.Fatalf("%+v, want %g and what is empty", r, free)
			}
			got := make([]float64, len(want))
			for i, s := range sites {
				if to := c.byStack[origin{s.stack, ""}]; to != nil {
					got[i] = to.estimate
					stated[i] += chance * to.variance
				}
				got[len(sites)] += got[i]
			}
			stated[len(sites)] += chance * c.variance
			for i := range got {
				mean[i] += chance * got[i]
				square[i] += chance * (got[i] - want[i]) * (got[i] - want[i])
			}
		}
		for i := range want {
			ratio := math.Sqrt(square[i] / stated[i])
			most := 1.3
			if i == len(sites) {
				most = 1 + 1e-6
			}
			if math.Abs(mean[i]/want[i]-1) > 1e-9 || ratio > most || ratio < 1/most {
				t.Errorf("rate %d, site %d: on average %g, want %g; off by %g, stated %g", rate, i, mean[i], want[i], math.Sqrt(square[i]), math.Sqrt(stated[i]))
			}
		}
	}
}

// moving is a Heap that yields memory twice, as it may while others allocate and free.
type moving struct{ blockalloc.Heap }

func (*moving) Spans(yield func(blockalloc.Span) bool) {
	for _, s := range []blockalloc.Span{{Addr: 0x20000, Size: 0x1000, Free: 0x1000}, {Addr: 0x10000, Size: 0x8000, Free: 0x7000}, {Addr: 0x14000, Size: 0x4000, Free: 0x4000}} {
		if !yield(s) {
			return
		}
	}
}

// TestPinnedTwice: memory that is in two spans of an allocator counts as the later one, and an allocator that is there twice once.
func TestPinnedTwice(t *testing.T) {
	a := new(moving)
	r, err := New(Options{Rate: 1}).Pinned(alloctrace.Wrap(a), a)
	if want := []PinnedIn{{"heapprofile.moving", 2, 0x5000, 0x5000}}; err != nil || r.Bytes != 0x5000 || r.Empty != 0x5000 || !slices.Equal(r.Allocators, want) {
		t.Errorf("%+v, %v, want %+v", r, err, want)
	}
}

// TestPinnedNowhere: what has no spans is an error, nothing is a panic.
func TestPinnedNowhere(t *testing.T) {
	p := New(Options{})
	if _, err := p.Pinned(new(blockalloc.Heap)); !errors.Is(err, errors.ErrUnsupported) {
		t.Errorf("Pinned of a Heap: %v", err)
	}
	for _, of := range [][]blockalloc.Allocator{nil, {nil}, {new(blockalloc.Pool), nil}} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("Pinned of %v has not panicked", of)
				}
			}()
			_, _ = p.Pinned(of...)
		}()
	}
}
