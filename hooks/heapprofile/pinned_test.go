package heapprofile

import (
	"errors"
	"maps"
	"math"
	"testing"

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
type off struct{ sum, squares, variance float64 }

func (o *off) add(estimate int64, want float64, standardError int64) {
	d := float64(estimate) - want
	o.sum += d
	o.squares += d * d
	o.variance += float64(standardError) * float64(standardError)
}

// TestPinnedSampled: over many programs, the estimates are right on average for what their comment says, and as far off as they say.
// What is no fault and yet far off is not so three times.
func TestPinnedSampled(t *testing.T) {
	programs := uint64(300)
	if testing.Short() {
		programs = 100
	}
	for _, rate := range []int{200, 4 << 10, 64 << 10} {
		var failed string
		for range 3 {
			offs := make(map[string]*off)
			for seed := range programs {
				comparePinned(t, seed, rate, offs)
			}
			failed = ""
			for name, o := range offs {
				standardErrors, calibration := o.sum/math.Sqrt(o.variance), math.Sqrt(o.squares/o.variance)
				t.Logf("rate %d, %s: off by %.2f standard errors, each by %.2f", rate, name, standardErrors, calibration)
				if math.Abs(standardErrors) > 4 || calibration < 0.5 || calibration > 1.5 {
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
