package memlimit

import (
	"math"
	"runtime/debug"
	"testing"
	"testing/fstest"

	"github.com/alloctrace/alloctrace/counter"
)

// TestPacerBudget: it lets no garbage be made for which the memory limit, or the cgroup's, has no room.
func TestPacerBudget(t *testing.T) {
	atGOGC100(t)
	n, source := offHeap()
	n.Store(512 * mib)
	free := newTestPacer(t, PacerOptions{}, source)
	unbounded := free.Stats().Goal
	free.Close()
	if unbounded < 512*mib {
		t.Fatalf("the goal is %d without a budget", unbounded)
	}
	bounded := func(what string, p *Pacer, err error, budget int64) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		defer p.Close()
		s := p.Stats()
		if total := s.Goal + s.OffHeap; total > budget || total < budget*8/10 {
			t.Errorf("%s: goal and off-heap are %s, want nearly %s", what, counter.FormatBytes(total), counter.FormatBytes(budget))
		}
	}
	p, err := newPacer(PacerOptions{}, cgroupOf("838860800"), []counter.Source{source}) // 800 MiB
	bounded("in a cgroup", p, err, 720*mib)
	debug.SetMemoryLimit(700 * mib)
	p, err = newPacer(PacerOptions{}, cgroupOf("838860800"), []counter.Source{source})
	bounded("with GOMEMLIMIT", p, err, 700*mib)
	p, err = newPacer(PacerOptions{Budget: 600 * mib}, cgroupOf("838860800"), []counter.Source{source})
	bounded("with a Budget", p, err, 600*mib)

	debug.SetMemoryLimit(400 * mib)
	p = newTestPacer(t, PacerOptions{}, source)
	if s := p.Stats(); s.Percent != 100 {
		t.Errorf("%+v where there is no room", s)
	}
	p.Close()

	p = newTestPacer(t, PacerOptions{MaxGarbage: 32 * mib}, source)
	if s := p.Stats(); s.Goal > max(s.Live, 4*mib)+32*mib {
		t.Errorf("%+v with MaxGarbage 32 MiB", s)
	}
}

func cgroupOf(limit string) fstest.MapFS {
	return fstest.MapFS{
		"proc/self/cgroup":         {Data: []byte("0::/\n")},
		"proc/self/mountinfo":      {Data: []byte(mountV2)},
		"sys/fs/cgroup/memory.max": {Data: []byte(limit)},
	}
}

// TestPacerAndLimiter: each keeps its own, whichever is closed first, and Go's goal is the lower one.
func TestPacerAndLimiter(t *testing.T) {
	atGOGC100(t)
	n, source := offHeap()
	n.Store(512 * mib)
	for _, pacerFirst := range []bool{true, false} {
		l, err := New(Options{Budget: 640 * mib}, source)
		if err != nil {
			t.Fatal(err)
		}
		p := newTestPacer(t, PacerOptions{}, source)
		s := collect(p)
		if s.Goal < 512*mib {
			t.Errorf("the Pacer's goal is %s: it takes off-heap memory from the limit a second time", counter.FormatBytes(s.Goal))
		}
		if got := goal(); got > 128*mib {
			t.Errorf("Go's goal is %s, want less than 128 MiB, which the Limiter leaves", counter.FormatBytes(got))
		}
		limitIs(t, "paced", 128*mib)
		percentIs(t, "limited", s.Percent)
		if pacerFirst {
			p.Close()
			limitIs(t, "the Pacer closed", 128*mib)
			l.Close()
		} else {
			l.Close()
			percentIs(t, "the Limiter closed", s.Percent)
			p.Close()
		}
		limitIs(t, "both closed", math.MaxInt64)
		percentIs(t, "both closed", 100)
	}
}
