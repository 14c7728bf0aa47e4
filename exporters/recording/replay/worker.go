package replay

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// A worker performs some of the operations, one after the other.
type worker struct {
	run   *run
	index uint64
	next  int           // the operation
	op    string        // what it calls
	late  time.Duration // at most
	calls [3]sampled

	performed, unavailable int64

	call      call
	abandoned bool
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
	if w.next < len(w.run.p.ops) && !w.abandoned {
		w.run.fail(w.failure(Panicked, errEnded), 0)
		w.run.stop()
	}
}

// some performs operations until one panics.
func (w *worker) some() {
	r := w.run
	defer func() {
		if v := recover(); v != nil {
			w.returned()
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
			r.progress(w.next)
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
	w.entering()
	if len(w.run.p.ops) < 1<<15 || seedOf(w.next)%32 == 0 {
		return time.Now(), true
	}
	return began, false
}

// end ends it.
func (w *worker) end(call int, began time.Time, timed bool) {
	c := &w.calls[call]
	if timed {
		c.time += max(0, time.Since(began)-w.run.clock)
		c.timed++
	}
	w.returned()
	c.calls++
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
