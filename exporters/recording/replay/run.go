package replay

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// Options configure a replay. The zero value is right for most.
type Options struct {
	// Goroutines spreads the operations over so many goroutines. Those on one block keep their order, as do those on blocks
	// that had the same address one after the other. Nothing else does: what is live at one time can be more than in the
	// recording. One block in eight or more is freed by another goroutine than the one that allocated it. Zero means one.
	Goroutines int

	// Paced begins no operation before its time in the recording.
	Paced bool

	// KeepGoing goes on after a failure. Result has how many there were, and the first.
	KeepGoing bool

	// Edges fills and checks the first and the last 64 bytes of a block instead of all.
	Edges bool

	// Addresses looks for live blocks that overlap when a block is acquired, by its address. Otherwise they are found when
	// the contents of one of them have changed. It costs a lock and some hundred nanoseconds an operation.
	Addresses bool

	// Progress, if it is not nil, is called now and then by one of the goroutines: with how many operations it has gone by, and
	// how many there are. In the end it is called with all, though a failure may have ended the replay.
	Progress func(done, of int64)
}

// Run performs the operations of p on a, in their order, and frees what they left live. Each block is asked for with the size
// and the alignment that the program asked for, or what it was granted if that is not recorded. It is filled with a
// pattern, which is checked before and after a reallocation, and before the block is freed. Operations that failed in the
// recording are skipped: the program went on without them.
//
// The error is a [*Failure] that wraps the error of a, or that of ctx. The Result has what was done by then. Blocks that are
// still live are then freed too, as far as a does that.
//
// A call of a that does not return after ctx has ended, or after another failure, for two seconds in which nothing else does either, is a Failure too:
// [Stuck]. Its goroutine stays, and what is live is not freed. So a ctx with a deadline finds calls that hang.
//
// While Run checks contents, it turns faults into panics of its own goroutines ([debug.SetPanicOnFault]), and these into failures.
func Run(ctx context.Context, p *Program, a blockalloc.Allocator, o Options) (Result, error) {
	if p == nil || a == nil {
		return Result{}, errors.New("replay: Run: pass a Program and an allocator, such as new(blockalloc.Pool)")
	}
	if o.Goroutines < 0 {
		return Result{}, fmt.Errorf("replay: Run: Options.Goroutines is %d: use 1 or more, or 0 for 1", o.Goroutines)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	r := &run{p: p, allocator: a, options: o, done: ctx.Done(), cancel: cancel, slots: make([]slot, p.slots), clock: clockCost()}
	r.options.Goroutines = max(1, o.Goroutines)
	for i := range r.slots {
		r.slots[i].acquired = -1 // which has its page in memory before that is measured
	}
	defer context.AfterFunc(ctx, func() { r.stopped.Store(true) })()
	r.result.Resident.Before = resident()
	r.began = time.Now()
	workers := make([]worker, r.options.Goroutines+1) // the last one frees what is left
	stuck := r.perform(ctx, workers[:r.options.Goroutines], (*worker).work)
	r.result.Wall = time.Since(r.began)
	r.progress(len(p.ops))
	err := context.Cause(ctx)
	if stuck == nil {
		r.sample()
		end := workers[r.options.Goroutines:]
		if stuck = r.perform(ctx, end, (*worker).freeLeft); stuck != nil {
			r.stuck(ctx, stuck, true)
		}
	} else {
		r.stuck(ctx, stuck, false)
	}
	r.finish(workers)
	switch f := r.result.First; {
	case f != nil:
		return r.result, f
	case err != nil:
		return r.result, fmt.Errorf("replay: %w", err)
	}
	return r.result, nil
}

// perform has each worker do what it is to do, and returns one that is stuck.
func (r *run) perform(ctx context.Context, workers []worker, do func(*worker)) (stuck *worker) {
	var all sync.WaitGroup
	for i := range workers {
		w := &workers[i]
		w.run, w.index = r, uint64(i)
		all.Go(func() {
			defer w.ended()
			do(w)
		})
	}
	ended := make(chan struct{})
	go func() {
		all.Wait()
		close(ended)
	}()
	return r.await(ctx, ended, workers)
}

// A run is a replay.
type run struct {
	p         *Program
	allocator blockalloc.Allocator
	options   Options
	slots     []slot
	began     time.Time
	clock     time.Duration // what it costs to look at it twice
	blocks    index         // with Options.Addresses
	stopped   atomic.Bool
	done      <-chan struct{}
	cancel    func()

	blocksLive, requested, granted atomic.Int64
	peak                           atomic.Int64 // granted

	mu      sync.Mutex // guards what follows
	result  Result
	refused []blockalloc.Block // that could not be freed; the end tries again
	wrong   uintptr            // the address of the byte that the first failure found changed, 0 if it is about something else
}

// A slot has a block. Its operations take turns by step.
type slot struct {
	block    blockalloc.Block
	acquired int // the operation that acquired it; -1 if there is none
	step     atomic.Uint32
}

// clockCost returns what it costs to look at the clock before and after.
func clockCost() time.Duration {
	least := time.Hour
	for range 100 {
		began := time.Now()
		least = min(least, time.Since(began))
	}
	return least
}

// count adds a block to what is live, or with sign -1 removes it.
func (r *run) count(b blockalloc.Block, requested uintptr, sign int64) {
	blocks := r.blocksLive.Add(sign)
	asked := r.requested.Add(sign * int64(requested))
	granted := r.granted.Add(sign * int64(b.Size()))
	if granted <= r.peak.Load() {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if granted > r.peak.Load() {
		r.peak.Store(granted)
		r.result.Peak = Live{blocks, asked, granted}
	}
}

// fail counts a failure, and ends the replay unless it is to go on. A byte that has changed has an address.
func (r *run) fail(f *Failure, wrong uintptr) {
	r.mu.Lock()
	r.result.Failed++
	if first := r.result.First; first == nil || !f.AtEnd && f.Event.Number < first.Event.Number {
		r.result.First, r.wrong = f, wrong
	}
	r.mu.Unlock()
	if !r.options.KeepGoing {
		r.stop()
	}
}

// progress says how far the replay is.
func (r *run) progress(done int) {
	if r.options.Progress != nil {
		r.options.Progress(int64(done), int64(len(r.p.ops)))
	}
}

func (r *run) stop() {
	r.stopped.Store(true)
	r.cancel()
}

// finish sums up what workers have done.
func (r *run) finish(workers []worker) {
	result := &r.result
	result.Recorded = r.p.recorded
	result.Skipped = r.p.recorded.Skipped
	for i := range workers[:len(workers)-1] { // the last one freed what was left
		w := &workers[i]
		result.Late = max(result.Late, w.late)
		result.Skipped.Unavailable += w.unavailable
		for i, of := range []*Call{&result.Calls.Allocate, &result.Calls.Reallocate, &result.Calls.Free} {
			of.Count += w.calls[i].calls
			of.timed += w.calls[i].timed
			of.measured += w.calls[i].time
		}
	}
	for _, of := range []*Call{&result.Calls.Allocate, &result.Calls.Reallocate, &result.Calls.Free} {
		if of.timed > 0 {
			of.Time = time.Duration(float64(of.measured) / float64(of.timed) * float64(of.Count))
		}
		result.Operations += of.Count
	}
}
