package hooks

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/internal/shard"
)

// A Ring is a Hook that keeps the last events in memory, to be read after a failure or
// by a test, or to be told to slower hooks by a [Drainer]. It costs one atomic
// addition an event, and what its clock costs.
//
// Where goroutines meet in it at once it spreads over shards, four a processor and
// 64 at most, each with room for as many events. Nothing else is allocated. Events of a
// shard are kept in order, and so are those of a goroutine, but for the few times that
// it moves to another shard. Between shards the order is that of the clock.
//
// Contexts are not kept. Of events with an error, each shard keeps the last 64.
type Ring struct {
	clock  Clock
	size   uint64
	spread atomic.Pointer[[]ringShard] // nil as long as home is enough
	_      [64]byte                    // keeps what all read off the cache line that some write
	home   ringShard
}

var _ alloctrace.Hook = (*Ring)(nil)

// ringShard is where some goroutines write. A writer takes a place by adding to head,
// and then writes its record there. Readers do not hold it up.
//
// Memory ordering: none is asked for. A record is words that are written one by one,
// without atomic operations, which would cost as much as head each. A reader that
// comes too early, or while a later writer is at work, sees words of two records, and
// finds that by the last of them, a hash of the others and of the record's number.
type ringShard struct {
	head    atomic.Uint64 // records begun: the first has number 1
	_       [56]byte
	records []record
	meeting shard.Meeting
	rare    rareEvents
	_       [64]byte
}

// record is an event as it lies in a ring.
type record [4]uint64

const (
	recordAddr = iota
	recordRest // the size, the binary logarithm of the alignment, and the kind
	recordTime
	recordHash
)

const (
	kindBits  = 8
	alignBits = 8
	rare      = 1<<kindBits - 1 // a kind: the event is one of ringShard.rare
)

// hash tells a whole record from parts of two. Each word is followed by a step that
// maps different states to different ones, so that no single word can differ unseen.
func hash(number, addr, rest, at uint64) uint64 {
	const odd = 0x9e3779b97f4a7c15
	h := (number ^ bits.RotateLeft64(addr, 32)) * odd
	h = (bits.RotateLeft64(h, 29) ^ rest) * odd
	return bits.RotateLeft64(h, 29) ^ at
}

// NewRing returns a Ring that keeps the last n events of each shard, n rounded up to a
// power of two, 32 bytes each. A nil clock leaves out the time.
func NewRing(n int, clock Clock) *Ring {
	if n < 1 || n > 1<<30 {
		panic(fmt.Sprintf("hooks: NewRing(%d): use 1 to %d events", n, 1<<30))
	}
	r := &Ring{clock: clock, size: 1 << bits.Len(uint(n-1))}
	r.home.records = make([]record, r.size)
	return r
}

// Observe keeps e.
func (r *Ring) Observe(_ context.Context, e alloctrace.Event) {
	s := &r.home
	if spread := r.spread.Load(); spread != nil {
		_, i := shard.All.Pick()
		s = &(*spread)[i]
	}
	var at uint64
	if r.clock != nil {
		at = uint64(r.clock.Now())
	}
	n := s.head.Add(1)
	rest := uint64(e.Size)<<(kindBits+alignBits) | uint64(bits.TrailingZeros64(uint64(e.Align)))<<kindBits | uint64(e.Kind)
	if e.Err != nil || uint64(e.Size)>>(64-kindBits-alignBits) != 0 || e.Align&(e.Align-1) != 0 {
		s.rare.keep(n, e) // before the record, so that who reads it finds the event
		rest = rare
	}
	w := &s.records[n&uint64(len(s.records)-1)]
	store(&w[recordAddr], uint64(e.Addr))
	store(&w[recordRest], rest)
	store(&w[recordTime], at)
	store(&w[recordHash], hash(n, uint64(e.Addr), rest, at))
	if n%64 == 0 {
		slot, _ := shard.All.Pick()
		r.meet(s, slot)
	}
}

// meet is called now and then by who writes in s.
func (r *Ring) meet(s *ringShard, slot uint32) {
	if !s.meeting.Crowded(slot) {
		return
	}
	if r.spread.Load() != nil {
		shard.All.Collided(slot)
		return
	}
	spread := make([]ringShard, shard.Count)
	for i := range spread {
		spread[i].records = make([]record, r.size)
	}
	r.spread.CompareAndSwap(nil, &spread)
}

// shards returns those there are. None ever goes.
func (r *Ring) shards() []*ringShard {
	list := []*ringShard{&r.home}
	if spread := r.spread.Load(); spread != nil {
		for i := range *spread {
			list = append(list, &(*spread)[i])
		}
	}
	return list
}

// A Record is an event that was kept in a [Ring].
type Record struct {
	alloctrace.Event
	Time time.Time // zero if the Ring has no clock
}

// ErrForgotten is the error of an event that more than 64 others with an error have
// followed in its shard. All else but its address is forgotten too, and its Kind is 0.
var ErrForgotten = errors.New("hooks: the Ring has kept this event longer than its error")

// read returns record number n, if it is there whole.
func (r *Ring) read(s *ringShard, n uint64) (rec Record, ok bool) {
	w := &s.records[n&(r.size-1)]
	addr, rest, at := load(&w[recordAddr]), load(&w[recordRest]), load(&w[recordTime])
	if load(&w[recordHash]) != hash(n, addr, rest, at) {
		return Record{}, false
	}
	if r.clock != nil {
		rec.Time = time.Unix(0, int64(at))
	}
	if rest == rare {
		rec.Event = s.rare.find(n, uintptr(addr))
		return rec, true
	}
	rec.Event = alloctrace.Event{
		Kind:  alloctrace.Kind(rest & (1<<kindBits - 1)),
		Addr:  uintptr(addr),
		Size:  uintptr(rest >> (kindBits + alignBits)),
		Align: 1 << (rest >> kindBits & (1<<alignBits - 1)), // 0 for 64, as it was
	}
	return rec, true
}

// Records returns the events that the Ring has, the oldest first: by the clock if there
// is one, else shard by shard. It may be called while events are told. Those that are
// being written meanwhile, or written over, are left out.
func (r *Ring) Records() []Record {
	var list []Record
	for _, s := range r.shards() {
		head := s.head.Load()
		for n := head - min(head, r.size) + 1; n <= head; n++ {
			if rec, ok := r.read(s, n); ok {
				list = append(list, rec)
			}
		}
	}
	if r.clock != nil {
		slices.SortStableFunc(list, func(a, b Record) int { return a.Time.Compare(b.Time) })
	}
	return list
}

// Told returns how many events the Ring has been told of.
func (r *Ring) Told() uint64 {
	var sum uint64
	for _, s := range r.shards() {
		sum += s.head.Load()
	}
	return sum
}

// rareEvents are the last events of a shard that do not fit into a record, by their
// numbers.
type rareEvents struct {
	mu   sync.Mutex
	next int
	kept [64]struct {
		number uint64
		event  alloctrace.Event
	}
}

func (r *rareEvents) keep(number uint64, e alloctrace.Event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept[r.next].number, r.kept[r.next].event = number, e
	r.next = (r.next + 1) % len(r.kept)
}

func (r *rareEvents) find(number uint64, addr uintptr) alloctrace.Event {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i := range r.kept {
		if r.kept[i].number == number {
			return r.kept[i].event
		}
	}
	return alloctrace.Event{Addr: addr, Err: ErrForgotten}
}
