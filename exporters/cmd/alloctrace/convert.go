package main

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"maps"
	"math"
	"runtime"
	"slices"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/exporters/cmd/alloctrace/internal/preload"
	"github.com/alloctrace/alloctrace/exporters/recording"
)

// A converter makes a recording of what a process has recorded of malloc. Its Proxy has the name of the program.
type converter struct {
	from    preload.Header
	symbols *preload.Symbols
	to      *recording.Writer
	threads bool // each is a child

	live    map[uint64]block
	stacks  map[string]knownStack
	key     []byte
	last    time.Duration
	summary converted

	reallocations uint64 // that were written

	// Reallocations that have begun, by thread and by the address of the old block. A recording has both events of one side by side,
	// so that those of several threads cannot be mistaken for each other: the first waits for the second. If another thread has the old
	// block's memory meanwhile, both are due before that, and all that follows waits in queue.
	pending map[uint32]*reallocation
	moving  map[uint64]*reallocation
	queue   []queued
}

// converted is what a conversion was.
type converted struct {
	events, lost int64
	peak, bytes  int64 // granted bytes that were live, at most and at the end
	blocks       int64 // at the end
}

// A knownStack is what the return addresses of a stack were, when files were mapped so often.
type knownStack struct {
	*recording.Stack
	maps int
}

// A block is what a release says of it.
type block struct {
	size, align uintptr
}

// A reallocation begins with the event old and ends with new, which has no kind if that event was lost.
type reallocation struct {
	old, new    recording.Event
	began, done uint64 // the numbers of these events; done is 0 until then
	queued      bool
}

// A queued is an event, or a reallocation.
type queued struct {
	event recording.Event
	of    *reallocation
}

// convert writes the recording of from to w, until ctx is cancelled.
func convert(ctx context.Context, w io.Writer, from *preload.File, modules preload.Modules, threads bool) (converted, error) {
	c, err := newConverter(w, from.Header, from.Symbols(modules), threads)
	if err != nil {
		return converted{}, err
	}
	var damage error
	for e, err := range from.Events() {
		if damage = cmp.Or(err, context.Cause(ctx)); damage != nil {
			break
		}
		if err := c.event(e); err != nil {
			return c.summary, err
		}
	}
	if err := c.finish(); err != nil {
		return c.summary, err
	}
	return c.summary, damage
}

func newConverter(w io.Writer, from preload.Header, symbols *preload.Symbols, threads bool) (*converter, error) {
	to, err := recording.NewWriter(w, recording.Header{
		Program: from.Program, PID: from.PID, GOOS: "linux", GOARCH: runtime.GOARCH, PageSize: from.PageSize, Began: from.Began, Stacks: from.Frames > 0,
	})
	return &converter{
		from: from, symbols: symbols, to: to, threads: threads, live: make(map[uint64]block), stacks: make(map[string]knownStack),
		pending: make(map[uint32]*reallocation), moving: make(map[uint64]*reallocation),
	}, err
}

// finish ends the recording. Reallocations that have not ended were interrupted when the process was killed.
func (c *converter) finish() error {
	for _, thread := range slices.Sorted(maps.Keys(c.pending)) {
		if err := c.end(thread, math.MaxUint64, recording.Event{}); err != nil {
			return err
		}
	}
	c.summary.blocks = int64(len(c.live))
	return c.to.Close()
}

// event adds an event.
func (c *converter) event(e preload.Event) error {
	out := recording.Event{At: max(0, e.Time), Proxy: c.from.Name}
	if e.Lost > 0 {
		return c.emit(queued{event: recording.Event{At: c.last, Dropped: int64(min(e.Lost, math.MaxInt64))}})
	}
	if c.threads {
		out.Child = fmt.Sprintf("thread %d", e.Thread)
	}
	out.Kind, out.Addr, out.Stack = e.Kind, uintptr(e.Addr), c.stack(e)
	if e.Kind != alloctrace.Reallocated && e.Kind != alloctrace.ReallocateFailed && c.pending[e.Thread] != nil {
		if err := c.end(e.Thread, e.Number, recording.Event{}); err != nil {
			return err
		}
	}
	switch e.Kind {
	case alloctrace.Allocated, alloctrace.AllocateFailed:
		c.acquire(&out, e, 0)
		if r := c.moving[e.Addr]; r != nil && !r.queued && e.Kind == alloctrace.Allocated {
			r.queued = true
			c.queue = append(c.queue, queued{of: r})
		}
	case alloctrace.Freeing:
		c.release(&out, e)
	case alloctrace.Reallocating:
		c.release(&out, e)
		r := &reallocation{old: out, began: e.Number}
		c.pending[e.Thread], c.moving[e.Addr] = r, r
		return nil
	case alloctrace.Reallocated:
		align := uintptr(0)
		if r := c.pending[e.Thread]; r != nil {
			align = r.old.Align
		}
		c.acquire(&out, e, align)
		return c.end(e.Thread, e.Number, out)
	case alloctrace.ReallocateFailed:
		r := c.pending[e.Thread]
		if r == nil { // its beginning was lost
			out.Kind, out.Addr, e.Kind = alloctrace.AllocateFailed, 0, alloctrace.AllocateFailed
			c.acquire(&out, e, 0)
			break
		}
		out.Size, out.Align = r.old.Size, r.old.Align
		c.add(e.Addr, block{r.old.Size, r.old.Align})
		return c.end(e.Thread, e.Number, out)
	}
	return c.emit(queued{event: out})
}

// end ends the reallocation of a thread with an event of a number, which has no kind if it is not known. Without a reallocation, whose
// beginning was lost then, it is an event like others.
func (c *converter) end(thread uint32, number uint64, e recording.Event) error {
	r := c.pending[thread]
	if r == nil {
		if e.Kind == alloctrace.Reallocated {
			e.Kind = alloctrace.Allocated
		}
		return c.emit(queued{event: e})
	}
	delete(c.pending, thread)
	if c.moving[uint64(r.old.Addr)] == r {
		delete(c.moving, uint64(r.old.Addr))
	}
	r.new, r.done = e, number
	if !r.queued {
		c.queue = append(c.queue, queued{of: r})
	} else {
		r.new.At = r.old.At
	}
	c.releaseBefore(r)
	return c.drain()
}

// releaseBefore puts the reallocation that has released the memory of r, if it is not written yet, before r: it did so before, but
// its thread has not said it.
func (c *converter) releaseBefore(r *reallocation) {
	if r.new.Kind != alloctrace.Reallocated || r.new.Addr == r.old.Addr {
		return
	}
	at := slices.IndexFunc(c.queue, func(q queued) bool { return q.of == r })
	other := c.moving[uint64(r.new.Addr)]
	if other != nil && !other.queued && other.began < r.done {
		other.queued = true
	} else {
		i := slices.IndexFunc(c.queue[at:], func(q queued) bool {
			return q.of != nil && q.of != r && q.of.old.Addr == r.new.Addr && q.of.began < r.done
		})
		if i < 0 {
			return
		}
		other = c.queue[at+i].of
		c.queue = slices.Delete(c.queue, at+i, at+i+1)
	}
	c.queue = slices.Insert(c.queue, at, queued{of: other})
	c.releaseBefore(other)
}

// mostWaiting is how many events wait for the end of a reallocation. It is not known of one that has not ended by then: its event was
// lost, or its thread has ended.
const mostWaiting = 1 << 16

// emit writes an event, or has it wait for those before.
func (c *converter) emit(q queued) error {
	c.queue = append(c.queue, q)
	if len(c.queue) > mostWaiting {
		for thread, r := range c.pending {
			if r == c.queue[0].of {
				return c.end(thread, r.began, recording.Event{})
			}
		}
	}
	return c.drain()
}

// drain writes what waits for nothing.
func (c *converter) drain() error {
	n := 0
	for _, q := range c.queue {
		if q.of != nil && q.of.done == 0 {
			break
		}
		n++
		if err := c.write(q); err != nil {
			return err
		}
	}
	c.queue = slices.Delete(c.queue, 0, n)
	return nil
}

func (c *converter) write(q queued) error {
	events := []recording.Event{q.event}
	if r := q.of; r != nil {
		events[0] = r.old
		if r.new.Kind == alloctrace.Reallocated && r.new.Align != r.old.Align { // another allocator could not reallocate it so
			events[0].Kind, r.new.Kind = alloctrace.Freeing, alloctrace.Allocated
		} else {
			c.reallocations++
			events[0].Reallocation, r.new.Reallocation = c.reallocations, c.reallocations
		}
		if r.new.Kind != 0 {
			events = append(events, r.new)
		}
	}
	for _, e := range events {
		c.last = max(c.last, e.At)
		e.At = c.last
		if err := c.to.Write(e); err != nil {
			return err
		}
		if c.summary.lost += e.Dropped; e.Dropped == 0 {
			c.summary.events++
		}
	}
	return nil
}

// most is the largest size that a recording has.
const most = 1<<48 - 1

// acquire makes out what has acquired a block: aligned as the one was that it is reallocated from, if that is not 0 and it is.
func (c *converter) acquire(out *recording.Event, e preload.Event, align uintptr) {
	requested := min(max(1, e.Size), most) // of no bytes malloc returns a block
	if out.Align = e.Align; e.Align == c.from.Align && requested < uint64(e.Align) {
		out.Align /= 2 // malloc need not align what is smaller than its alignment to that
	}
	if align > 0 && e.Addr&uint64(align-1) == 0 {
		out.Align = align
	}
	out.Requested, out.Size = uintptr(requested), uintptr(min(max(requested, e.Usable), most))
	if e.Kind != alloctrace.AllocateFailed {
		c.add(e.Addr, block{out.Size, out.Align})
	}
}

// release makes out what releases a block. One that is not known has no bytes.
func (c *converter) release(out *recording.Event, e preload.Event) {
	b, ok := c.live[e.Addr]
	if !ok {
		b.align = 1
	}
	delete(c.live, e.Addr)
	c.summary.bytes -= int64(b.size)
	out.Size, out.Align = b.size, b.align
}

func (c *converter) add(addr uint64, b block) {
	c.summary.bytes += int64(b.size) - int64(c.live[addr].size) // one whose release was lost may be there
	c.live[addr] = b
	c.summary.peak = max(c.summary.peak, c.summary.bytes)
}

// stack returns the stack of an event: of two that are the same the same.
func (c *converter) stack(e preload.Event) *recording.Stack {
	if len(e.Stack) == 0 {
		return nil
	}
	c.key = c.key[:0]
	for _, pc := range e.Stack {
		c.key = binary.LittleEndian.AppendUint64(c.key, pc)
	}
	s, maps := c.stacks[string(c.key)], c.symbols.Maps(e.Number)
	if s.Stack != nil && s.maps == maps {
		return s.Stack
	}
	var frames []recording.Frame
	for _, pc := range e.Stack {
		frames = append(frames, recording.Frame(c.symbols.Frame(pc, e.Number)))
	}
	if s.Stack == nil || !slices.Equal(frames, s.Frames) { // another library may be where one was
		s.Stack = &recording.Stack{Frames: frames}
	}
	c.stacks[string(c.key)] = knownStack{s.Stack, maps}
	return s.Stack
}
