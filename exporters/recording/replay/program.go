package replay

import (
	"errors"
	"iter"
	"math/bits"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/exporters/recording"
)

// A Program is the operations of a recording. Any number of [Run] may use it at once. It takes 56 bytes an operation.
type Program struct {
	ops      []operation
	sites    []site
	slots    int
	recorded Recorded
}

// Recorded is what a recording says of itself.
type Recorded struct {
	Events     int64         `json:"events"` // those that are there
	Operations int64         `json:"operations"`
	Duration   time.Duration `json:"duration_ns"` // from its first event to its last
	Peak       Live          `json:"peak"`
	Skipped    Skipped       `json:"-"` // Result has it

	// Lost is how many blocks have no release: something else is at their address later. They are freed then.
	Lost int64 `json:"lost_frees"`
}

// Skipped is how many operations of a recording are not performed, and why.
type Skipped struct {
	Failed  int64 `json:"failed"`  // they failed in the recording too
	Unknown int64 `json:"unknown"` // releases of blocks that are older than the recording, or whose acquisition was dropped
	Dropped int64 `json:"dropped"` // events that the recording lacks

	// Unavailable are operations on blocks that could not be acquired in the replay. [Options].KeepGoing goes on then.
	Unavailable int64 `json:"unavailable"`
}

// Live is what is live at one time.
type Live struct {
	Blocks    int64 `json:"blocks"`
	Requested int64 `json:"requested"` // bytes
	Granted   int64 `json:"granted"`   // bytes
}

// An operation is one that is performed, as an event.
type operation struct {
	at                       time.Duration
	number                   int64 // of its event
	addr, granted, requested uintptr
	slot                     uint32 // where the replay has the block
	step                     uint32 // how many operations use that slot before
	site                     uint32
	kind                     alloctrace.Kind // Allocated, Reallocated or Freeing; 0 if it turned out to be none
	align                    uint8           // its binary logarithm
}

// A site is what many events have in common.
type site struct {
	stack                *recording.Stack
	proxy, child, region string
}

// size is what is asked for: of a block of no bytes one, as malloc does.
func (o *operation) size() uintptr {
	if o.requested > 0 {
		return o.requested
	}
	return max(1, o.granted)
}

// event returns the event of an operation.
func (p *Program) event(o *operation) Event {
	s := &p.sites[o.site]
	return Event{o.number, recording.Event{
		Event:     alloctrace.Event{Kind: o.kind, Addr: o.addr, Size: o.granted, Align: 1 << o.align},
		Requested: o.requested, At: o.at, Stack: s.stack, Proxy: s.proxy, Child: s.child, Region: s.region,
	}}
}

// Recorded returns what the recording says of itself.
func (p *Program) Recorded() Recorded { return p.recorded }

// Load returns the Program of the events of a recording: those of [recording.Reader.Events], or of a history.Recording, which has the
// file before it too. If some of it is damaged, it returns the Program of the rest, and the errors.
//
// A reallocation is the events with one [recording.Event].Reallocation. Those without are taken to free a block and to allocate another.
func Load(events iter.Seq2[recording.Event, error]) (*Program, error) {
	l := newLoader(0)
	var damage error
	for e, err := range events {
		if err != nil {
			damage = errors.Join(damage, err)
		} else {
			l.add(e)
		}
	}
	return l.program(), damage
}

// New returns the Program of events.
func New(events []recording.Event) *Program {
	l := newLoader(len(events))
	for _, e := range events {
		l.add(e)
	}
	return l.program()
}

// A loader makes a Program of events. It finds out which events are of one block.
type loader struct {
	p       *Program
	number  int64
	first   time.Duration
	at      map[uintptr]*held  // by address: the block that is there, or was there last
	pending map[uint64]pending // reallocations that have begun, by number; those to nothing stay
	sites   map[site]uint32
	live    Live

	// Of each event, the block that it is of, and -1 if it is of none. Blocks are numbered in order.
	blockOf []int32
	blocks  int32
	keeps   bool // blockOf
}

// A held is a block.
type held struct {
	slot               uint32
	block              int32
	released           int  // the operation that released it, counted from 1; 0 while it is live
	strange            int  // releases of what was not live here
	known              bool // its acquisition is there
	moving             bool // it was released by a reallocation that is pending
	granted, requested uintptr
}

// A pending is a reallocation that has begun.
type pending struct {
	*held
	live bool // it was
	addr uintptr
}

// newLoader returns a loader of so many events, or 0 if it is not known how many.
func newLoader(events int) *loader {
	return &loader{
		p: &Program{ops: make([]operation, 0, events)}, at: make(map[uintptr]*held, events/2), pending: make(map[uint64]pending), sites: make(map[site]uint32),
	}
}

// program returns what was added, without operations that turned out to be none.
func (l *loader) program() *Program {
	p := l.p
	steps := make([]uint32, p.slots)
	ops := p.ops[:0]
	for _, o := range p.ops {
		if o.kind == 0 {
			continue
		}
		o.step = steps[o.slot]
		steps[o.slot]++
		ops = append(ops, o)
	}
	p.ops = ops
	p.recorded.Operations = int64(len(ops))
	return p
}

func (l *loader) add(e recording.Event) {
	r := &l.p.recorded
	l.number++
	if l.number == 1 {
		l.first = e.At
	}
	r.Duration = e.At - l.first
	block := int32(-1)
	if e.Dropped > 0 {
		r.Skipped.Dropped += e.Dropped
	} else {
		r.Events++
		switch e.Kind {
		case alloctrace.Allocated:
			block = l.acquire(e)
		case alloctrace.Reallocated:
			block = l.reallocated(e)
		case alloctrace.Reallocating:
			h, live := l.release(e)
			if live {
				block, h.moving = h.block, e.Reallocation != 0
			}
			if e.Reallocation != 0 {
				l.pending[e.Reallocation] = pending{h, live, e.Addr}
			}
		case alloctrace.Freeing:
			if h, live := l.release(e); live {
				block = h.block
			}
		case alloctrace.ReallocateFailed, alloctrace.FreeFailed:
			if d, ok := l.pending[e.Reallocation]; ok {
				delete(l.pending, e.Reallocation)
				l.takeBack(d.held, d.live)
			} else if h := l.at[e.Addr]; h != nil && e.Reallocation == 0 && (h.strange > 0 || !h.moving) {
				l.takeBack(h, h.strange == 0)
			}
			r.Skipped.Failed++
		default:
			r.Skipped.Failed++
		}
	}
	if l.keeps {
		l.blockOf = append(l.blockOf, block)
	}
}

// operation adds an operation. It returns its number, counted from 1.
func (l *loader) operation(k alloctrace.Kind, e recording.Event, slot uint32) int {
	of := site{e.Stack, e.Proxy, e.Child, e.Region}
	n, ok := l.sites[of]
	if !ok {
		n = uint32(len(l.p.sites))
		l.sites[of] = n
		l.p.sites = append(l.p.sites, of)
	}
	l.p.ops = append(l.p.ops, operation{
		at: e.At, number: l.number, addr: e.Addr, granted: e.Size, requested: e.Requested, slot: slot, site: n, kind: k,
		align: uint8(bits.TrailingZeros64(uint64(e.Align))),
	})
	return len(l.p.ops)
}

// count adds a block to what is live, or with sign -1 removes it.
func (l *loader) count(h *held, sign int64) {
	requested := h.requested
	if requested == 0 {
		requested = h.granted
	}
	l.live.Blocks += sign
	l.live.Requested += sign * int64(requested)
	l.live.Granted += sign * int64(h.granted)
	if l.live.Granted > l.p.recorded.Peak.Granted {
		l.p.recorded.Peak = l.live
	}
}

// vacate makes room for a block at an address. What is said to be there must have been released: its slot is free.
func (l *loader) vacate(e recording.Event) (slot uint32, ok bool) {
	h := l.at[e.Addr]
	if h == nil || !h.known {
		return 0, false
	}
	if h.released == 0 {
		e.Stack, e.Size, e.Requested = nil, h.granted, 0
		l.operation(alloctrace.Freeing, e, h.slot)
		l.count(h, -1)
		l.p.recorded.Lost++
	}
	return h.slot, !h.moving
}

// acquire adds an allocation. It returns the block.
func (l *loader) acquire(e recording.Event) int32 {
	slot, ok := l.vacate(e)
	if !ok {
		slot = uint32(l.p.slots)
		l.p.slots++
	}
	h := &held{slot: slot, block: l.blocks, known: true, granted: e.Size, requested: e.Requested}
	l.blocks++
	l.at[e.Addr] = h
	l.operation(alloctrace.Allocated, e, slot)
	l.count(h, 1)
	return h.block
}

// release adds the release of a block, which may be taken back. It reports whether the block is live.
func (l *loader) release(e recording.Event) (h *held, live bool) {
	h = l.at[e.Addr]
	if h == nil {
		h = new(held)
		l.at[e.Addr] = h
	}
	if !h.known || h.released > 0 || e.Size != h.granted && (e.Size < h.requested || e.Size > h.granted) {
		l.p.recorded.Skipped.Unknown++
		h.strange++
		return h, false
	}
	h.released = l.operation(alloctrace.Freeing, e, h.slot)
	l.count(h, -1)
	return h, true
}

// takeBack undoes the last release of a block that was live, or of one that was not.
func (l *loader) takeBack(h *held, live bool) {
	switch {
	case !live && h.strange > 0:
		h.strange--
		l.p.recorded.Skipped.Unknown--
	case live && h.released > 0:
		o := &l.p.ops[h.released-1]
		o.kind, h.released, h.moving = 0, 0, false
		if l.keeps {
			l.blockOf[o.number-1] = -1
		}
		l.count(h, 1)
	}
}

// reallocated adds the end of a reallocation. If its beginning is not known, or was not of a known block, the block is allocated.
func (l *loader) reallocated(e recording.Event) int32 {
	d, ok := l.pending[e.Reallocation]
	delete(l.pending, e.Reallocation)
	if !ok || !d.live {
		return l.acquire(e)
	}
	l.p.ops[d.released-1].kind = 0
	if l.at[d.addr] == d.held {
		delete(l.at, d.addr)
	}
	_, _ = l.vacate(e)
	h := &held{slot: d.slot, block: d.block, known: true, granted: e.Size, requested: e.Requested}
	l.at[e.Addr] = h
	l.operation(alloctrace.Reallocated, e, d.slot)
	l.count(h, 1)
	return h.block
}
