package replay

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alloctrace/alloctrace"
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
}

// Run performs the operations of p on a, in their order, and frees what they left live. Each block is asked for with the size
// and the alignment that the program asked for, or what it was granted if that is not recorded. It is filled with a
// pattern, which is checked before and after a reallocation, and before the block is freed. Operations that failed in the
// recording are skipped: the program went on without them.
//
// The error is a [*Failure] that wraps the error of a, or that of ctx. The Result has what was done by then. Blocks that are
// still live are then freed too, as far as a does that.
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
	var all sync.WaitGroup
	workers := make([]worker, r.options.Goroutines)
	for i := range workers {
		w := &workers[i]
		w.run, w.index = r, uint64(i)
		all.Go(w.work)
	}
	all.Wait()
	r.result.Wall = time.Since(r.began)
	r.sample()
	err := context.Cause(ctx)
	end := worker{run: r}
	all.Go(end.freeLeft)
	all.Wait()
	r.finish(append(workers, end))
	switch f := r.result.First; {
	case f != nil:
		return r.result, f
	case err != nil:
		return r.result, fmt.Errorf("replay: %w", err)
	}
	return r.result, nil
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

// A worker performs some of the operations, one after the other.
type worker struct {
	run   *run
	index uint64
	next  int           // the operation
	op    string        // what it calls
	late  time.Duration // at most
	calls [3]sampled

	performed, unavailable int64
}

// Indices of worker.calls.
const (
	callAllocate = iota
	callReallocate
	callFree
)

var callNames = [...]string{"allocate", "reallocate", "free"}

// sampled are calls of which some were timed.
type sampled struct {
	calls, timed int64
	time         time.Duration
}

// work performs the operations of w until the end, or until the replay is stopped.
func (w *worker) work() {
	debug.SetPanicOnFault(true)
	defer w.catch() // of runtime.Goexit
	for w.next < len(w.run.p.ops) && !w.run.stopped.Load() {
		w.some()
	}
	w.next = len(w.run.p.ops)
}

// catch reports that the allocator has ended the goroutine.
func (w *worker) catch() {
	if w.next < len(w.run.p.ops) {
		w.run.fail(w.failure(Panicked, errEnded), 0)
		w.run.stop()
	}
}

// some performs operations until one panics.
func (w *worker) some() {
	r := w.run
	defer func() {
		if v := recover(); v != nil {
			w.panicked(v)
			r.slots[r.p.ops[w.next].slot].step.Add(1)
			w.next++
		}
	}()
	ops, many := r.p.ops, uint64(r.options.Goroutines)
	for ; w.next < len(ops) && !r.stopped.Load(); w.next++ {
		if many > 1 && ops[w.next].worker(many) != w.index {
			continue
		}
		if !w.wait() {
			break
		}
		w.perform()
		if w.performed%sampleEvery == 0 && w.index == 0 {
			r.sample()
		}
		w.performed++
		r.slots[ops[w.next].slot].step.Add(1)
	}
}

func (w *worker) panicked(v any) {
	err, ok := v.(error)
	if !ok {
		err = fmt.Errorf("%v", v)
	}
	w.run.fail(w.failure(Panicked, err), 0)
}

// worker returns which of many workers performs o. It is another one after every eighth operation on a slot, so that one block in
// eight or more is freed by another than the one that allocated it, and most workers do not wait.
func (o *operation) worker(many uint64) uint64 {
	first := seedOf(int(o.slot))
	return (first>>8 + (first%8+uint64(o.step))/8) % many
}

// wait waits for the time of the next operation, and for those before on its block. It returns false if the replay was stopped.
func (w *worker) wait() bool {
	r := w.run
	o := &r.p.ops[w.next]
	if r.options.Paced {
		wait := o.at - r.p.ops[0].at - time.Since(r.began)
		if wait > 0 {
			timer := time.NewTimer(wait)
			select {
			case <-timer.C:
			case <-r.done:
				timer.Stop()
				return false
			}
			wait = o.at - r.p.ops[0].at - time.Since(r.began)
		}
		w.late = max(w.late, -wait)
	}
	for i := 0; r.slots[o.slot].step.Load() != o.step; i++ {
		if r.stopped.Load() {
			return false
		}
		if i < 100 {
			runtime.Gosched()
		} else {
			time.Sleep(50 * time.Microsecond)
		}
	}
	return true
}

// perform performs the next operation.
func (w *worker) perform() {
	r := w.run
	o := &r.p.ops[w.next]
	s := &r.slots[o.slot]
	switch {
	case o.kind == alloctrace.Allocated:
		w.allocate(o, s)
	case s.acquired < 0:
		w.unavailable++
	case o.kind == alloctrace.Reallocated:
		w.reallocate(o, s)
	default:
		w.free(s)
	}
}

func (w *worker) allocate(o *operation, s *slot) {
	w.op = callNames[callAllocate]
	l := blockalloc.Layout{Size: o.size(), Align: 1 << o.align}
	began, timed := w.begin()
	b, err := w.run.allocator.Allocate(l)
	w.end(callAllocate, began, timed)
	if err != nil {
		w.run.fail(w.failure(Refused, err), 0)
		return
	}
	w.acquired(o, s, b)
}

// acquired takes b as the block of s, once it is seen to be what was asked for.
func (w *worker) acquired(o *operation, s *slot, b blockalloc.Block) {
	r := w.run
	s.block, s.acquired = b, w.next
	r.count(b, o.size(), 1)
	switch size, align := o.size(), uintptr(1)<<o.align; {
	case b.Size() < size:
		r.fail(w.failure(TooSmall, fmt.Errorf("the block has %d B", b.Size())), 0)
	case b.Addr()&(align-1) != 0:
		r.fail(w.failure(Misaligned, fmt.Errorf("the block is at %#x", b.Addr())), 0)
	case r.options.Addresses:
		if other, overlaps := r.blocks.add(entry{b.Addr(), b.Addr() + b.Size(), w.next}); overlaps {
			f := w.failure(Overlaps, errOverlap)
			event := r.p.event(&r.p.ops[other.operation])
			f.Other = &event
			r.fail(f, 0)
		}
	}
	fill(b.Bytes(), seedOf(w.next), r.options.Edges)
}

func (w *worker) reallocate(o *operation, s *slot) {
	w.op = callNames[callReallocate]
	r := w.run
	old, acquired, was := s.block, s.acquired, r.p.ops[s.acquired].size()
	intact := w.check(s, old.Bytes())
	w.leave(s)
	began, timed := w.begin()
	b, err := r.allocator.Reallocate(old, o.size())
	w.end(callReallocate, began, timed)
	if err != nil {
		w.comeBack(s)
		r.fail(w.failure(Refused, err), 0)
		return
	}
	r.count(old, was, -1)
	kept := min(old.Size(), o.size(), b.Size())
	if wrong := check(b.Bytes()[:kept], int(old.Size()), seedOf(acquired), r.options.Edges); wrong != nil && intact {
		f := w.failure(Changed, fmt.Errorf("after the reallocation, %w", wrong))
		r.fail(f, b.Addr()+uintptr(wrong.offset))
	}
	w.acquired(o, s, b)
}

func (w *worker) free(s *slot) {
	w.op = callNames[callFree]
	r := w.run
	b, was := s.block, r.p.ops[s.acquired].size()
	w.check(s, b.Bytes())
	w.leave(s)
	began, timed := w.begin()
	err := r.allocator.Free(b)
	w.end(callFree, began, timed)
	if err != nil {
		w.comeBack(s)
		r.fail(w.failure(Refused, err), 0)
		r.mu.Lock()
		r.refused = append(r.refused, b)
		r.mu.Unlock()
	} else {
		r.count(b, was, -1)
	}
	s.block, s.acquired = blockalloc.Block{}, -1
}

// check reports whether the contents of s are what they were.
func (w *worker) check(s *slot, b []byte) bool {
	wrong := check(b, len(b), seedOf(s.acquired), w.run.options.Edges)
	if wrong != nil {
		w.run.fail(w.failure(Changed, wrong), s.block.Addr()+uintptr(wrong.offset))
	}
	return wrong == nil
}

// leave removes the block of s from the index, before its memory can be that of another.
func (w *worker) leave(s *slot) {
	if w.run.options.Addresses {
		w.run.blocks.remove(s.block.Addr(), s.acquired)
	}
}

// comeBack undoes leave.
func (w *worker) comeBack(s *slot) {
	if w.run.options.Addresses {
		w.run.blocks.add(entry{s.block.Addr(), s.block.Addr() + s.block.Size(), s.acquired})
	}
}

// begin begins a call of the allocator, which is timed as [Call] says.
func (w *worker) begin() (began time.Time, timed bool) {
	if len(w.run.p.ops) < 1<<15 || seedOf(w.next)%32 == 0 {
		return time.Now(), true
	}
	return began, false
}

// end ends it.
func (w *worker) end(call int, began time.Time, timed bool) {
	c := &w.calls[call]
	c.calls++
	if timed {
		c.time += max(0, time.Since(began)-w.run.clock)
		c.timed++
	}
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

// failure returns the failure of the operation that w performs.
func (w *worker) failure(reason Reason, err error) *Failure {
	p := w.run.p
	o := &p.ops[min(w.next, len(p.ops)-1)]
	f := &Failure{Event: p.event(o), Op: w.op, Reason: reason, Err: err}
	if acquired := w.run.slots[o.slot].acquired; acquired >= 0 && acquired != w.next {
		event := p.event(&p.ops[acquired])
		f.Acquired = &event
	}
	return f
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

func (r *run) stop() {
	r.stopped.Store(true)
	r.cancel()
}

// freeLeft finds what the first failure is about, and frees what is live. It checks it too, unless the replay was stopped.
func (w *worker) freeLeft() {
	debug.SetPanicOnFault(true)
	r := w.run
	r.nameOther()
	ended := r.stopped.Load()
	for i := range r.slots {
		s := &r.slots[i]
		if s.acquired < 0 {
			continue
		}
		if !ended {
			o := &r.p.ops[s.acquired]
			r.result.Left.Blocks++
			r.result.Left.Requested += int64(o.size())
			r.result.Left.Granted += int64(s.block.Size())
		}
		w.freeOne(s, ended)
	}
	for _, b := range r.refused {
		w.freeAgain(b)
	}
	r.result.Resident.After = resident()
}

// freeOne frees the block of s. After the replay was stopped, errors are expected, and say nothing.
func (w *worker) freeOne(s *slot, ended bool) {
	w.next, w.op = s.acquired, callNames[callFree]
	r := w.run
	defer func() {
		if v := recover(); v != nil && !ended {
			w.atEnd(Panicked, fmt.Errorf("%v", v), 0)
		}
	}()
	b := s.block
	if !ended {
		if wrong := check(b.Bytes(), int(b.Size()), seedOf(s.acquired), r.options.Edges); wrong != nil {
			w.atEnd(Changed, wrong, b.Addr()+uintptr(wrong.offset))
		}
	}
	if err := r.allocator.Free(b); err != nil && !ended {
		w.atEnd(Refused, err, 0)
	}
}

// freeAgain frees what could not be freed, if it can be now. What is wrong with it was said.
func (w *worker) freeAgain(b blockalloc.Block) {
	defer func() { _ = recover() }()
	_ = w.run.allocator.Free(b)
}

func (w *worker) atEnd(reason Reason, err error, wrong uintptr) {
	f := w.failure(reason, err)
	f.AtEnd = true
	w.run.fail(f, wrong)
	w.run.nameOther()
}

// nameOther finds the block that has the byte which the first failure found changed, beside the one whose byte it is.
func (r *run) nameOther() {
	f := r.result.First
	if f == nil || f.Other != nil || r.wrong == 0 {
		return
	}
	for i := range r.slots {
		s := &r.slots[i]
		if s.acquired < 0 || r.wrong < s.block.Addr() || r.wrong-s.block.Addr() >= s.block.Size() {
			continue
		}
		if event := r.p.event(&r.p.ops[s.acquired]); event.Number != f.Event.Number && (f.Acquired == nil || event.Number != f.Acquired.Number) {
			f.Other = &event
			return
		}
	}
}

// finish sums up what workers have done.
func (r *run) finish(workers []worker) {
	result := &r.result
	result.Recorded = r.p.recorded
	result.Skipped = r.p.recorded.Skipped
	for _, w := range workers[:len(workers)-1] { // the last one freed what was left
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
