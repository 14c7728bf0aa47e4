// Package ring keeps the last events of an [alloctrace.Proxy] in memory: to be read after a failure
// or by a test, or to be delivered to a slow hook by a goroutine of its own.
package ring

import (
	"context"
	"fmt"
	"math/bits"
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/hooks"
	"github.com/alloctrace/alloctrace/internal/shard"
	"github.com/alloctrace/alloctrace/internal/stored"
)

// A Ring is a Hook that keeps the last events. [Ring.Records] returns them, and a [Drainer]
// delivers them to another Hook. An event costs no atomic operation and no lock, some dozen
// nanoseconds, and what the clock costs. A Ring may be used by several goroutines at once, and
// by several proxies.
//
// Each processor writes records of its own, which are allocated with its first event; a
// Ring allocates nothing else. Where the Go runtime cannot be asked to keep a goroutine
// on its processor, as under the race detector, goroutines are distinguished by their
// stacks instead, and an event costs a lock that few share.
//
// Events of one goroutine are in the order in which they happened, whatever processors it
// was on. So are those of goroutines that take turns. Once goroutines have delivered events at
// the same time for a while, events of different goroutines on different processors are in the
// order of the clock. Without a clock they are then grouped by processor, for some milliseconds
// at a time if there is a Drainer. An event costs a few nanoseconds more then.
//
// Contexts are not kept. The errors are those of the last 64 events that had one. An event of a
// child Proxy has its name, and costs some nanoseconds more.
type Ring struct {
	clock    Clock
	size     uint64                      // records a shard
	shards   []atomic.Pointer[ringShard] // each nil until its first event
	others   atomic.Pointer[ringShard]   // for processors that have none
	epoch    atomic.Uint64
	_        [64]byte     // keeps what all read off the cache lines that some write
	short    atomic.Int32 // epochs that were short
	overflow overflow
	children children
	storage  stored.Storage // nil if it is on the Go heap

	// For each goroutine, by hash: the unordered epoch in which it last wrote, and the number of
	// the shard, plus one, in the lower half.
	goroutines [1 << goroutineBits]atomic.Uint64
}

var (
	_ alloctrace.Attacher = (*Ring)(nil)
	_ hooks.UsageSource   = (*Ring)(nil)
)

// New returns a Ring that keeps the last events of each processor: their number is rounded up to
// a power of two, and each takes 32 bytes. With a nil clock, records have no time.
func New(events int, clock Clock) *Ring {
	if events < 1 || events > 1<<30 {
		panic(fmt.Sprintf("ring: New(%d): use 1 to %d events", events, 1<<30))
	}
	return &Ring{
		clock:  clock,
		size:   1 << bits.Len(uint(events-1)),
		shards: make([]atomic.Pointer[ringShard], shard.NumProcs),
	}
}

func init() {
	stored.NewRing = func(events int, clock any, s stored.Storage) any {
		r := New(events, clock.(Clock))
		r.storage, r.overflow.storage, r.children.storage = s, s, s
		return r
	}
}

// Observe keeps e.
func (r *Ring) Observe(_ context.Context, e alloctrace.Event, err error) {
	rest := packed(e)
	if err != nil || needsOverflow(e) {
		rest = r.overflow.keep(e, err, "") // before the record, so that who reads it finds the event
	}
	at := r.now()
	p := shard.Pin()
	if shard.Pinned && uint(p.Index) < uint(len(r.shards)) {
		s, epoch := r.shards[p.Index].Load(), r.epoch.Load()
		if s != nil && int(epoch>>epochShift) == p.Index {
			s.write(p, p.Add(&s.head, 1), epoch, uint64(e.Addr), rest, at)
			p.Unpin()
			return
		}
		if s != nil && epoch>>epochShift == unordered {
			r.writeUnordered(p, s, uint64(e.Addr), rest, at)
			return
		}
	}
	p.Unpin()
	r.observe(uint64(e.Addr), rest, at)
}

func (r *Ring) now() uint64 {
	if r.clock == nil {
		return 0
	}
	return uint64(r.clock.Now())
}

// observe keeps an event if the processor has no shard yet, if its shard is shared, or if the epoch
// is that of another.
func (r *Ring) observe(addr, rest, at uint64) {
	p, s := r.enter(shard.Pin())
	epoch := r.epoch.Load()
	if int(epoch>>epochShift) != p.Index {
		epoch = r.begin(p.Index, s)
	}
	if epoch>>epochShift == unordered {
		epoch = r.epochOfGoroutine(p.Index)
	}
	s.write(p, p.Add(&s.head, 1), epoch, addr, rest, at)
	if s.shared {
		s.mu.Unlock()
		return
	}
	p.Unpin()
}

// writeUnordered writes in an unordered epoch, and unpins p.
//
//go:noinline
func (r *Ring) writeUnordered(p shard.Proc, s *ringShard, addr, rest, at uint64) {
	epoch := r.epochOfGoroutine(p.Index)
	s.write(p, p.Add(&s.head, 1), epoch, addr, rest, at)
	p.Unpin()
}

// Observed returns how many events the Ring has observed.
func (r *Ring) Observed() uint64 {
	var sum uint64
	for _, s := range r.all() {
		sum += uint64(s.head.Load())
	}
	return sum
}

// Usage returns what r has done and takes. It keeps all events, and that it overwrites them
// is no loss: what a [Drainer] misses of them, that one has dropped.
func (r *Ring) Usage() hooks.Usage {
	observed := int64(r.Observed())
	perShard := unsafe.Sizeof(ringShard{})
	if r.storage == nil {
		perShard += uintptr(r.size) * unsafe.Sizeof(record{})
	}
	return hooks.Usage{
		Events:  observed,
		Sampled: observed,
		Bytes: int64(unsafe.Sizeof(*r)) + int64(len(r.shards))*int64(unsafe.Sizeof(r.others)) +
			int64(len(r.all()))*int64(perShard),
	}
}
