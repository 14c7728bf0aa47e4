package hooks

import (
	"context"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/internal/goroutine"
	"github.com/alloctrace/alloctrace/internal/shard"
)

// A Ring is a Hook that keeps the last events in memory, to be read after a failure or
// by a test, or to be told to slower hooks by a [Drainer]. An event costs no atomic
// operation and no lock, some dozen nanoseconds, and what the clock costs.
//
// Each processor writes records of its own, which are allocated with its first event; a
// Ring allocates nothing else. Where the Go runtime cannot be asked to keep a goroutine
// on its processor, as under the race detector, goroutines are told apart by their
// stacks instead, and an event costs a lock that few share.
//
// Events of one goroutine are in the order in which they happened, whatever processors it
// was on. So are those of several goroutines that take turns, until goroutines have
// delivered events at the same time for a while: from then on, events of different goroutines
// on different processors are in the order of the clock, and without one processor by
// processor, for some milliseconds at a time if there is a Drainer. An event costs a few
// nanoseconds more then.
//
// Contexts are not kept. The errors are those of the last 64 events that had one.
type Ring struct {
	clock  Clock
	size   uint64                      // records a shard
	shards []atomic.Pointer[ringShard] // each nil until its first event
	others atomic.Pointer[ringShard]   // for processors that have none
	turn   atomic.Uint64
	_      [64]byte     // keeps what all read off the cache lines that some write
	short  atomic.Int32 // turns that were short
	rare   rareEvents

	// For each goroutine, by hash: the turn in which it last wrote while everyone had it, and
	// the number of the shard, plus one, in the lower half.
	goroutines [1 << goroutineBits]atomic.Uint64
}

var _ alloctrace.Hook = (*Ring)(nil)

// ringShard is where one writes at a time: who is on its processor, or if it is
// shared who holds its lock.
//
// Memory ordering: others see a writer's words in the order in which it writes them,
// which are head, a record, and the record's number. Who reads the number, then the
// record, and then a head that has not come to this place again, has read what belongs
// together.
type ringShard struct {
	head    atomic.Int64 // records begun: the first has number 1
	mask    uint64
	records *record // the first of mask+1
	began   int64   // the head with which its last turn began
	shared  bool
	mu      sync.Mutex
	_       [128]byte // keeps the next one off these cache lines
}

// record is an event as it lies in a ring.
type record [4]atomic.Uint64

const (
	recordAddr = iota
	recordRest // the size, the binary logarithm of the alignment, and the kind
	recordTime
	recordNumber // lower half, and that of its turn
)

const (
	kindBits  = 8
	alignBits = 8
	rare      = 1<<kindBits - 1 // a kind: the event is number rest>>kindBits of Ring.rare
)

// A turn is a number, in the lower half, and the shard that has it. Who writes in
// another shard takes the turn, so that the numbers tell the order of records in
// different shards. Goroutines that run at once do so all the time: then everyone has
// it. It is renewed when a goroutine has changed shards since, so that the numbers tell the
// order of what one goroutine writes. Numbers only rise.
const (
	goroutineBits = 9

	turnShift  = 32
	turnNumber = 1<<turnShift - 1
	everyone   = 1<<31 - 1

	// Turns of fewer records than shortTurn are short, and so many of them are enough.
	shortTurn  = 64
	shortTurns = 1000
)

// NewRing returns a Ring that keeps the last n events of each processor, n rounded up
// to a power of two, 32 bytes each. A nil clock leaves out the time.
func NewRing(n int, clock Clock) *Ring {
	if n < 1 || n > 1<<30 {
		panic(fmt.Sprintf("hooks: NewRing(%d): use 1 to %d events", n, 1<<30))
	}
	return &Ring{
		clock:  clock,
		size:   1 << bits.Len(uint(n-1)),
		shards: make([]atomic.Pointer[ringShard], shard.Own),
	}
}

// Observe keeps e.
func (r *Ring) Observe(_ context.Context, e alloctrace.Event, err error) {
	rest := packed(e)
	if err != nil || excess(e) != 0 {
		rest = r.rare.keep(e, err)<<kindBits | rare // before the record, so that who reads it finds the event
	}
	at := r.now()
	if i := shard.Enter(); shard.Exclusive && uint(i) < uint(len(r.shards)) {
		s, turn := r.shards[i].Load(), r.turn.Load()
		if s != nil && int(turn>>turnShift) == i {
			s.write(shard.Add(&s.head, 1), turn, uint64(e.Addr), rest, at)
			shard.Leave()
			return
		}
		if s != nil && turn>>turnShift == everyone {
			r.writeOrdered(i, s, uint64(e.Addr), rest, at)
			return
		}
	}
	shard.Leave()
	r.observe(uint64(e.Addr), rest, at)
}

func (r *Ring) now() uint64 {
	if r.clock == nil {
		return 0
	}
	return uint64(r.clock.Now())
}

// excess is not zero if e does not fit into a record.
func excess(e alloctrace.Event) uint64 {
	return uint64(e.Size)>>(64-kindBits-alignBits) | uint64(e.Align&(e.Align-1))
}

// packed returns what a record has of an event beside its address.
func packed(e alloctrace.Event) uint64 {
	return uint64(e.Size)<<(kindBits+alignBits) | uint64(bits.TrailingZeros64(uint64(e.Align)))<<kindBits | uint64(e.Kind)
}

// observe keeps an event where there is nothing to write in yet, or it is shared, or another
// has the turn.
func (r *Ring) observe(addr, rest, at uint64) {
	i, s := r.enter(shard.Enter())
	turn := r.turn.Load()
	if int(turn>>turnShift) != i {
		turn = r.take(i, s)
	}
	if turn>>turnShift == everyone {
		turn = r.ordered(i)
	}
	s.write(shard.Add(&s.head, 1), turn, addr, rest, at)
	if s.shared {
		s.mu.Unlock()
		return
	}
	shard.Leave()
}

// writeOrdered writes what everyone has the turn for, and leaves the shard.
//
//go:noinline
func (r *Ring) writeOrdered(i int, s *ringShard, addr, rest, at uint64) {
	turn := r.ordered(i)
	s.write(shard.Add(&s.head, 1), turn, addr, rest, at)
	shard.Leave()
}

// write writes the record that head has come to.
func (s *ringShard) write(head int64, turn, addr, rest, at uint64) {
	n := uint64(head)
	w := s.place(n)
	shard.Store(&w[recordAddr], addr)
	shard.Store(&w[recordRest], rest)
	shard.Store(&w[recordTime], at)
	shard.Store(&w[recordNumber], turn<<turnShift|uint64(uint32(n)))
}

// enter makes what shard i has not to write in, and returns the shard in which the
// caller is then.
func (r *Ring) enter(i int) (int, *ringShard) {
	for {
		own := &r.others
		if i < len(r.shards) {
			own = &r.shards[i]
		}
		s := own.Load()
		if s != nil && !s.shared {
			return i, s
		}
		shard.Leave()
		if s == nil {
			own.CompareAndSwap(nil, r.newShard(own == &r.others || !shard.Exclusive))
			s = own.Load()
		}
		if s.shared {
			s.mu.Lock()
			return i, s
		}
		i = shard.Enter()
	}
}

func (r *Ring) newShard(shared bool) *ringShard {
	return &ringShard{mask: r.size - 1, records: &make([]record, r.size)[0], shared: shared}
}

// take gives shard i the turn, unless everyone has it, and returns it.
func (r *Ring) take(i int, s *ringShard) uint64 {
	turn := r.turn.Load()
	if turn>>turnShift == everyone {
		return turn
	}
	began := s.head.Load()
	if began-s.began < shortTurn && r.short.Add(1) > shortTurns {
		i = everyone
	}
	s.began = began
	for turn>>turnShift != everyone {
		if next := uint64(i)<<turnShift | (turn+1)&turnNumber; r.turn.CompareAndSwap(turn, next) {
			return next
		}
		turn = r.turn.Load()
	}
	return turn
}

// ordered returns the turn, which everyone has, for what a goroutine writes in shard i. It is a
// later one than that in which the goroutine wrote in another shard.
//
// It does not matter if several goroutines have one hash: the words of goroutines only rise,
// and from one shard to another they rise to a later turn.
func (r *Ring) ordered(i int) uint64 {
	word := &r.goroutines[uint64(goroutine.ID())*0x9e3779b97f4a7c15>>(64-goroutineBits)]
	for {
		was := word.Load() // before the turn, so as not to be later
		turn := r.turn.Load()
		is := turn<<turnShift | uint64(i+1)
		if was == is {
			return turn
		}
		if wrote := was & turnNumber; wrote != 0 && wrote != uint64(i+1) && was>>turnShift == turn&turnNumber {
			r.renew(turn)
		} else if word.CompareAndSwap(was, is) {
			return turn
		}
	}
}

// renew gives those who have the turn a new one, unless there is a new one already.
func (r *Ring) renew(turn uint64) bool {
	return r.turn.CompareAndSwap(turn, turn&^turnNumber|(turn+1)&turnNumber)
}

// cut returns the shards there are, and the turn before which to read them: if an event of an
// earlier turn is there, all that its goroutine wrote before it is there too, of earlier turns
// too. For that a new turn begins, unless there is but one shard.
func (r *Ring) cut() (shards []*ringShard, turn int32) {
	if shards = r.all(); len(shards) < 2 {
		return shards, int32(r.turn.Load()) + 1<<30
	}
	for {
		if turn := r.turn.Load(); r.renew(turn) {
			return r.all(), int32(turn + 1)
		}
	}
}

// all returns the shards there are. None ever goes.
func (r *Ring) all() []*ringShard {
	var list []*ringShard
	for i := range r.shards {
		if s := r.shards[i].Load(); s != nil {
			list = append(list, s)
		}
	}
	if s := r.others.Load(); s != nil {
		list = append(list, s)
	}
	return list
}

// Usage returns what r has done and takes. It keeps all events, and that it writes over them
// is no loss: what a [Drainer] misses of them, that one has dropped.
func (r *Ring) Usage() Usage {
	told := int64(r.Told())
	shards := r.all()
	return Usage{
		Events:  told,
		Sampled: told,
		Bytes: int64(unsafe.Sizeof(*r)) + int64(len(r.shards))*int64(unsafe.Sizeof(r.others)) +
			int64(len(shards))*int64(unsafe.Sizeof(ringShard{})+uintptr(r.size)*unsafe.Sizeof(record{})),
	}
}

// place returns where record n lies, or one that is a multiple of the Ring's size away.
func (s *ringShard) place(n uint64) *record {
	return (*record)(unsafe.Add(unsafe.Pointer(s.records), n&s.mask*uint64(unsafe.Sizeof(record{}))))
}

// gone reports whether the place of record n has been used again, or is about to be.
func (s *ringShard) gone(n uint64) bool { return uint64(s.head.Load())-n > s.mask }

// rareEvents are the last events of a Ring that do not fit into a record.
type rareEvents struct {
	mu   sync.Mutex
	told uint64
	kept [64]struct {
		number uint64
		event  alloctrace.Event
		err    error
	}
}

// keep keeps e and returns its number.
func (r *rareEvents) keep(e alloctrace.Event, err error) uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.told++
	at := &r.kept[r.told%uint64(len(r.kept))]
	at.number, at.event, at.err = r.told, e, err
	return r.told
}

func (r *rareEvents) find(number uint64, addr uintptr) (alloctrace.Event, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if at := &r.kept[number%uint64(len(r.kept))]; at.number == number {
		return at.event, at.err
	}
	return alloctrace.Event{Addr: addr}, ErrForgotten
}
