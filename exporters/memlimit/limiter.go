package memlimit

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/sources"
)

// ErrNoBudget is what the error of [New] wraps if nothing bounds the memory of the process, as
// on most developers' machines.
var ErrNoBudget = errors.New("no budget")

// Options configure [New]. The zero Options are right in a container.
type Options struct {
	// Budget is how many bytes of memory the process may have in all. If it is 0, the budget
	// is GOMEMLIMIT, unless that is not set or more than the cgroup's limit. Then it is the
	// cgroup's limit times Headroom.
	Budget int64

	// Headroom is the fraction of a cgroup's limit that is the budget, more than 0 and at
	// most 1; 0 means 0.9. The rest is for memory that nobody counts. It does not apply to
	// Budget and GOMEMLIMIT.
	Headroom float64

	// Floor is how many bytes the limit is at least, however much is off-heap. Twice the live
	// heap is comfortable; with less than the live heap the collector runs all the time. Floor
	// can raise the floor above a tenth of the budget and 16 MiB, but not lower it.
	Floor int64

	// Interval is the time between ticks, 10 ms at least; 0 means 20 ms.
	Interval time.Duration
}

const defaultHeadroom = 0.9

// Bytes is a [counter.Source] of a number of live bytes. It is for memory that no Proxy
// counts, such as that of a C library. It must not count memory in the Go heap. One goroutine
// calls it at every tick. For a [blockalloc.Pool] there is [Pool].
type Bytes func() int64

// Stats returns Stats of which only LiveBytes is set.
func (f Bytes) Stats() counter.Stats { return counter.Stats{LiveBytes: f()} }

// Limiter keeps Go's memory limit. Its methods may be called by several goroutines at
// once. While it runs, nothing else may call [debug.SetMemoryLimit].
type Limiter struct {
	options Options
	root    fs.FS
	sources []counter.Source
	found   int64 // the limit before New
	ticks   ticks

	budgetAt time.Time // when the budget was found

	mu    sync.Mutex
	law   law
	stats Stats
}

// Stats are what a [Limiter] has done and sees. All but the counts are bytes.
type Stats struct {
	Budget  int64  `json:"budget"` // 0 while there is none, because the cgroup's limit was removed
	From    string `json:"from"`   // where the budget is from: Options.Budget, GOMEMLIMIT or a file; "" while there is none
	Floor   int64  `json:"floor"`
	OffHeap int64  `json:"off_heap"` // at the last tick
	Limit   int64  `json:"limit"`    // Go's, as last set
	Ticks   int64  `json:"ticks"`
	Lowered int64  `json:"lowered"`  // how often the limit was lowered, New's call included
	Raised  int64  `json:"raised"`   // how often the limit was raised
	AtFloor int64  `json:"at_floor"` // ticks at which budget - off-heap was below the floor
}

// String returns one line, for example
//
//	limit 96 MiB = budget 320 MiB (GOMEMLIMIT) - off-heap 224 MiB, floor 32 MiB; lowered 70 times, raised 0 times, at the floor 0 of 100 ticks
//
// It says "no limit" if Budget is 0.
func (s Stats) String() string {
	if s.Budget == 0 {
		return fmt.Sprintf("no limit: the cgroup's was removed; off-heap %s; lowered %d times, raised %d times, at the floor %d of %d ticks",
			counter.FormatBytes(s.OffHeap), s.Lowered, s.Raised, s.AtFloor, s.Ticks)
	}
	return fmt.Sprintf("limit %s = budget %s (%s) - off-heap %s, floor %s; lowered %d times, raised %d times, at the floor %d of %d ticks",
		counter.FormatBytes(s.Limit), counter.FormatBytes(s.Budget), s.From, counter.FormatBytes(s.OffHeap), counter.FormatBytes(s.Floor),
		s.Lowered, s.Raised, s.AtFloor, s.Ticks)
}

var running atomic.Bool

// New sets Go's memory limit to the budget less the live bytes of the sources in offHeap, and
// keeps it so until [Limiter.Close]. The sources are added up, so none may be part of another.
// A Proxy adds nothing if all its memory is in the Go heap, where the runtime counts it: one of
// a [blockalloc.Heap], or of [blockalloc.Default] under the race detector. If only a part is
// there, all of it counts.
//
// New returns an error if a Limiter runs already, because the limit is that of the process, and
// if there is no budget: see [ErrNoBudget]. After an error nothing has changed. New panics if a
// source is nil.
func New(o Options, offHeap ...counter.Source) (*Limiter, error) {
	sources.Require("memlimit: New", offHeap...)
	return newLimiter(o, rootDir(""), offHeap)
}

// newLimiter is New where root is the root of the file system.
func newLimiter(o Options, root fs.FS, sources []counter.Source) (*Limiter, error) {
	if err := o.complete(sources); err != nil {
		return nil, fmt.Errorf("memlimit: New: %w", err)
	}
	if !running.CompareAndSwap(false, true) {
		return nil, errors.New("memlimit: New: a Limiter is running already: close it first, or give it all sources")
	}
	sources = slices.DeleteFunc(slices.Clone(sources), onGoHeap)
	l := &Limiter{options: o, root: root, sources: sources, found: debug.SetMemoryLimit(-1), budgetAt: time.Now()}
	err := l.budget()
	if err == nil && o.Floor > l.law.budget {
		err = fmt.Errorf("Options.Floor is %d bytes, more than the budget of %d bytes from %s: lower the one or raise the other", o.Floor, l.law.budget, l.stats.From)
	}
	if err != nil {
		running.Store(false)
		return nil, fmt.Errorf("memlimit: New: %w", err)
	}
	off := l.offHeap()
	l.set(l.law.target(off), off)
	l.ticks = every(l.options.Interval, l.tick)
	return l, nil
}

// complete checks o and replaces what is zero by its default.
func (o *Options) complete(sources []counter.Source) error {
	if o.Headroom == 0 {
		o.Headroom = defaultHeadroom
	}
	if o.Interval == 0 {
		o.Interval = 20 * time.Millisecond
	}
	switch {
	case o.Budget < 0:
		return fmt.Errorf("Options.Budget is %d bytes: want more than 0, or 0 for GOMEMLIMIT or the cgroup's limit", o.Budget)
	case !(o.Headroom > 0 && o.Headroom <= 1):
		return fmt.Errorf("Options.Headroom is %v: want more than 0 and at most 1, or 0 for 0.9", o.Headroom)
	case o.Interval < 10*time.Millisecond:
		return fmt.Errorf("Options.Interval is %v: want at least 10ms, or 0 for 20ms", o.Interval)
	case o.Floor < 0:
		return fmt.Errorf("Options.Floor is %d bytes: want 0 or more", o.Floor)
	case len(sources) == 0:
		return errors.New("no sources: without off-heap memory GOMEMLIMIT alone does")
	}
	return nil
}

// budget finds the budget and sets the law by it. Where there is none any more, which is no
// error of reading, the law ends until there is one again.
func (l *Limiter) budget() error {
	budget, from, err := resolve(l.options, l.found, l.root)
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case err == nil:
		l.law = newLaw(budget, l.options.Floor, l.options.Interval)
	case budget == math.MaxInt64:
		l.law, budget = law{}, 0
	default:
		return err
	}
	l.stats.Budget, l.stats.From, l.stats.Floor = budget, from, l.law.floor
	return err
}

// next returns what Go's limit should be after this tick. Without a budget that is what New
// found.
func (l *Limiter) next(off int64) int64 {
	if l.stats.Budget == 0 {
		return l.found
	}
	return l.law.next(l.stats.Limit, off)
}

// resolve returns the budget and where it is from. found is Go's memory limit before
// New. Without any limit, the budget is [math.MaxInt64] beside the error.
func resolve(o Options, found int64, root fs.FS) (int64, string, error) {
	if o.Budget != 0 {
		return o.Budget, "Options.Budget", nil
	}
	limit, file, err := cgroupLimit(root)
	switch {
	case found <= limit && found != math.MaxInt64:
		limit, file = found, "GOMEMLIMIT"
	case err != nil:
		return 0, "", err
	case limit == math.MaxInt64:
		return limit, "", fmt.Errorf("%w: GOMEMLIMIT is not set and no cgroup has a limit: set one of them, or Options.Budget", ErrNoBudget)
	default:
		limit = int64(float64(limit) * o.Headroom)
	}
	if limit == 0 {
		return 0, "", fmt.Errorf("%w: %s is 0: raise it, or set Options.Budget", ErrNoBudget, file)
	}
	return limit, file, nil
}

// offHeap is what the sources have in all.
func (l *Limiter) offHeap() int64 { return sumLive(l.sources) }

func sumLive(sources []counter.Source) int64 {
	var sum int64
	for _, s := range sources {
		sum += max(0, s.Stats().LiveBytes)
	}
	return sum
}

const budgetAge = 10 * time.Second

// tick sets the limit, and finds the budget anew now and then.
func (l *Limiter) tick(now time.Time) {
	if l.options.Budget == 0 && now.Sub(l.budgetAt) >= budgetAge {
		l.budgetAt = now
		_ = l.budget() // what cannot be read leaves the one before in force
	}
	off := l.offHeap()
	l.set(l.next(off), off)
}

// nudge is where set allocates, so that the compiler does not drop it.
var nudge atomic.Pointer[[64 << 10]byte]

// set makes limit Go's memory limit, if it is not.
func (l *Limiter) set(limit, off int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := &l.stats
	before := r.Limit
	if r.Ticks == 0 {
		before = l.found
	}
	switch {
	case limit < before:
		r.Lowered++
	case limit > before:
		r.Raised++
	}
	if limit != before {
		debug.SetMemoryLimit(limit)
	}
	if limit < before {
		nudge.Store(new([64 << 10]byte))
		nudge.Store(nil)
	}
	r.Ticks++
	r.OffHeap, r.Limit = off, limit
	if r.Budget != 0 && l.law.budget-off < l.law.floor {
		r.AtFloor++
	}
}

// Stats returns the figures of the last tick, and the counts so far.
func (l *Limiter) Stats() Stats {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.stats
}

// Close ends l and restores the limit that New found. Later calls do nothing. The error is always nil.
func (l *Limiter) Close() error {
	l.ticks.end()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.found >= 0 {
		debug.SetMemoryLimit(l.found)
		l.found = -1
		running.Store(false)
	}
	return nil
}
