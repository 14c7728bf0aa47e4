package memlimit

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/sources"
)

// PacerOptions configure [NewPacer]. The zero PacerOptions pace as if all off-heap memory were on
// the heap.
type PacerOptions struct {
	// Budget is how many bytes of memory the process may have in all. If it is 0, it is found as
	// that of [Options] is. The Pacer lets no garbage collect for which the budget has no room.
	Budget int64

	// MaxGarbage is how many bytes of garbage the Pacer lets the Go heap collect beside what is
	// live; 0 means no bound of its own. With gigabytes off-heap, a part of them is enough to
	// make collections rare.
	MaxGarbage int64
}

// Pacer keeps Go's GC percentage, so that collections are as rare as if off-heap memory were on
// the Go heap. Its methods may be called by several goroutines at once.
type Pacer struct {
	options PacerOptions
	root    fs.FS
	sources []counter.Source
	closed  atomic.Bool
	ticks   ticks       // looks for collections that no finalizer has reported
	busy    atomic.Bool // an update is under way

	mu        sync.Mutex
	collector *collector
	budget    int64     // of the process, math.MaxInt64 if there is none
	budgetAt  time.Time // when it was found
	stats     PacerStats
}

// PacerStats are what a [Pacer] has done and sees.
type PacerStats struct {
	Base    int   `json:"base"`     // GC percentage that NewPacer found, negative if GOGC is off
	Percent int   `json:"percent"`  // GC percentage, as last set
	OffHeap int64 `json:"off_heap"` // bytes, after the last collection
	Live    int64 `json:"live"`     // bytes of the Go heap that the last collection marked
	Goal    int64 `json:"goal"`     // bytes of the Go heap at which the next one ends, if no memory limit is lower
	Cycles  int64 `json:"cycles"`   // collections after which the Pacer has looked
	Sets    int64 `json:"sets"`     // how often it has set the percentage
	Yielded bool  `json:"yielded"`  // somebody else has set the percentage, and the Pacer leaves it alone
}

// String returns one line, for example
//
//	GC percent 3300 for off-heap 256 MiB and live heap 8 MiB, at GOGC=100; heap goal 272 MiB; set 3 times in 12 collections
func (s PacerStats) String() string {
	if s.Yielded {
		return fmt.Sprintf("GC percent left to who set it last; the Pacer's was %d, at GOGC=%d; set %d times in %d collections", s.Percent, s.Base, s.Sets, s.Cycles)
	}
	if s.Base < 0 {
		return "GOGC=off: nothing to pace"
	}
	return fmt.Sprintf("GC percent %d for off-heap %s and live heap %s, at GOGC=%d; heap goal %s; set %d times in %d collections",
		s.Percent, counter.FormatBytes(s.OffHeap), counter.FormatBytes(s.Live), s.Base, counter.FormatBytes(s.Goal), s.Sets, s.Cycles)
}

var pacing atomic.Bool

// NewPacer raises Go's GC percentage so that the next collection starts when the program has made
// as much garbage as it could if the live bytes of the sources in offHeap were on the Go heap. It
// does so again after each collection, until [Pacer.Close]. Sources are those of [New]. For
// buffers, which come and go, give it [Pool]: on the heap those that a sync.Pool keeps for reuse
// count as live too. Bound what the Pool keeps by its MaxCached, since as much garbage
// comes on top.
//
// NewPacer returns an error if a Pacer runs already, because the percentage is that of the
// process, if an option is negative, if there are no sources, and if the limit of a cgroup cannot
// be read. No budget is no error. After an error nothing has changed. NewPacer panics if a source is nil.
func NewPacer(o PacerOptions, offHeap ...counter.Source) (*Pacer, error) {
	sources.Require("memlimit: NewPacer", offHeap...)
	return newPacer(o, rootDir(""), offHeap)
}

// newPacer is NewPacer where root is the root of the file system.
func newPacer(o PacerOptions, root fs.FS, sources []counter.Source) (*Pacer, error) {
	switch {
	case o.Budget < 0:
		return nil, fmt.Errorf("memlimit: NewPacer: PacerOptions.Budget is %d bytes: want more than 0, or 0 for GOMEMLIMIT or the cgroup's limit", o.Budget)
	case o.MaxGarbage < 0:
		return nil, fmt.Errorf("memlimit: NewPacer: PacerOptions.MaxGarbage is %d bytes: want more than 0, or 0 for no bound", o.MaxGarbage)
	case len(sources) == 0:
		return nil, errors.New("memlimit: NewPacer: no sources: without off-heap memory GOGC alone does")
	case !pacing.CompareAndSwap(false, true):
		return nil, errors.New("memlimit: NewPacer: a Pacer is running already: close it first, or give it all sources")
	}
	if o.MaxGarbage == 0 {
		o.MaxGarbage = math.MaxInt64
	}
	p := &Pacer{options: o, root: root, sources: slices.DeleteFunc(slices.Clone(sources), onGoHeap), collector: newCollector()}
	if err := p.findBudget(); err != nil {
		pacing.Store(false)
		return nil, fmt.Errorf("memlimit: NewPacer: %w", err)
	}
	p.collector.read()
	p.stats.Base = p.collector.percent()
	p.stats.Percent = p.stats.Base
	p.set()
	(&sentinel{p}).arm()
	p.ticks = every(lookEvery, func(time.Time) { p.update() })
	return p, nil
}

// sentinel is what each collection finds unreachable. It has a finalizer, and no cleanup: the runtime
// starts cleanups when it has swept all of the heap, which on a busy machine is when the next
// collection begins. Finalizers it starts as soon as it has swept the object, and it sweeps objects
// of this size before others.
type sentinel struct{ pacer *Pacer }

// arm has collected called after the next collection.
func (s *sentinel) arm() { runtime.SetFinalizer(s, (*sentinel).collected) }

// collected runs where all finalizers of the program do. What takes time is done elsewhere: sources
// are read.
func (s *sentinel) collected() {
	if !s.pacer.closed.Load() {
		s.arm()
		go s.pacer.update()
	}
}

// lookEvery is how often the Pacer looks for collections itself: finalizers do not run while one of the program's blocks.
const lookEvery = time.Second

// update sets the percentage, if there was a collection since it was last set. If it is called
// while it runs, it does nothing: what it missed is found by ticks.
func (p *Pacer) update() {
	if !p.busy.CompareAndSwap(false, true) {
		return
	}
	defer p.busy.Store(false)
	p.mu.Lock()
	defer p.mu.Unlock()
	seen := p.collector.cycles()
	p.collector.read()
	if p.collector.cycles() != seen && !p.closed.Load() {
		p.stats.Cycles++
		p.set()
	}
}

// set makes the percentage what it should be, unless somebody else has set it.
func (p *Pacer) set() {
	s := &p.stats
	s.Yielded = p.collector.percent() != s.Percent
	if s.Yielded || s.Base < 0 {
		return
	}
	h := p.collector.heap()
	s.Live, s.OffHeap = h.live, sumLive(p.sources)
	percent := h.pace(s.Base, h.pacedGoal(s.Base, s.OffHeap, min(p.options.MaxGarbage, p.room(h))))
	s.Goal = h.goal(percent)
	if percent == s.Percent {
		return
	}
	if before := debug.SetGCPercent(percent); before != s.Percent { // set since it was read
		debug.SetGCPercent(before)
		s.Yielded = true
		return
	}
	s.Percent = percent
	s.Sets++
}

// room is how many bytes of garbage there is room for in the budget. A Limiter sees to it by
// itself: then it is without bound.
func (p *Pacer) room(h heap) int64 {
	if time.Since(p.budgetAt) >= budgetAge {
		_ = p.findBudget() // what cannot be read leaves the one before in force
	}
	if p.budget == math.MaxInt64 || running.Load() {
		return math.MaxInt64
	}
	left := p.budget - p.stats.OffHeap - p.collector.beside()
	return max(0, left-left/32-h.live) // the runtime keeps 3 % away from its limit too
}

// findBudget finds how much memory the process may have.
func (p *Pacer) findBudget() error {
	p.budgetAt = time.Now()
	budget, _, err := resolve(Options{Budget: p.options.Budget, Headroom: defaultHeadroom}, debug.SetMemoryLimit(-1), p.root)
	if err == nil || budget == math.MaxInt64 {
		p.budget = budget
		return nil
	}
	return err
}

// Stats returns what the Pacer saw after the last collection, and the counts so far.
func (p *Pacer) Stats() PacerStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats
}

// Close ends p and restores the percentage that NewPacer found, unless somebody else has set it
// since. Later calls do nothing. The error is always nil.
func (p *Pacer) Close() error {
	p.ticks.end()
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed.Swap(true) {
		return nil
	}
	p.collector.read()
	if p.collector.percent() == p.stats.Percent {
		debug.SetGCPercent(p.stats.Base)
	}
	pacing.Store(false)
	return nil
}
