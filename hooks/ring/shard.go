package ring

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/internal/shard"
	"github.com/alloctrace/alloctrace/internal/stored"
)

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
	began   int64   // the head with which its last epoch began
	shared  bool
	mu      sync.Mutex
	_       [128]byte // keeps the next one off these cache lines
}

// record is an event as it lies in a ring.
type record = stored.Record

const (
	recordAddr = iota // its complement: see package hidden
	recordRest        // see stored.Record
	recordTime
	recordNumber // lower half, and that of its epoch
)

const (
	kindBits   = stored.KindBits
	alignBits  = stored.AlignBits
	childBits  = stored.ChildBits
	alignShift = stored.AlignShift
	childShift = stored.ChildShift
	sizeShift  = stored.SizeShift

	overflowed = stored.Overflowed // a kind: the event is number rest>>kindBits of Ring.overflow
)

// needsOverflow reports whether e does not fit into a record.
func needsOverflow(e alloctrace.Event) bool {
	return uint64(e.Size)>>(64-sizeShift)|uint64(e.Align&(e.Align-1)) != 0
}

// packed returns what a record has of an event beside its address.
func packed(e alloctrace.Event) uint64 {
	return uint64(e.Size)<<sizeShift | uint64(bits.TrailingZeros64(uint64(e.Align)))<<alignShift | uint64(e.Kind)
}

// unpacked returns the event that was packed, and the number of the child.
func unpacked(addr uintptr, rest uint64) (e alloctrace.Event, child uint64) {
	e = alloctrace.Event{
		Kind:  alloctrace.Kind(rest & (1<<kindBits - 1)),
		Addr:  addr,
		Size:  uintptr(rest >> sizeShift),
		Align: 1 << (rest >> alignShift & (1<<alignBits - 1)), // 0 for 64, as it was
	}
	return e, rest >> childShift & (1<<childBits - 1)
}

// enter makes p's shard if there is none, and returns where the caller is then: on a processor,
// or if the shard is shared in the possession of its lock.
func (r *Ring) enter(p shard.Proc) (shard.Proc, *ringShard) {
	for {
		own, i := &r.others, len(r.shards)
		if p.Index < len(r.shards) {
			own, i = &r.shards[p.Index], p.Index
		}
		s := own.Load()
		if s != nil && !s.shared {
			return p, s
		}
		p.Unpin()
		if s == nil {
			own.CompareAndSwap(nil, r.newShard(i, own == &r.others || !shard.Pinned))
			s = own.Load()
		}
		if s.shared {
			s.mu.Lock()
			return p, s
		}
		p = shard.Pin()
	}
}

func (r *Ring) newShard(i int, shared bool) *ringShard {
	s := &ringShard{mask: r.size - 1, shared: shared}
	if r.storage != nil {
		s.records = r.storage.Shard(i)
	} else {
		s.records = &make([]record, r.size)[0]
	}
	return s
}

// all returns the shards there are. None is ever removed.
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

// write writes the record that head has come to.
func (s *ringShard) write(p shard.Proc, head int64, epoch, addr, rest, at uint64) {
	n := uint64(head)
	w := s.place(n)
	p.Store(&w[recordAddr], ^addr)
	p.Store(&w[recordRest], rest)
	p.Store(&w[recordTime], at)
	p.Store(&w[recordNumber], epoch<<epochShift|uint64(uint32(n)))
}

// place returns where record n lies, or one that is a multiple of the Ring's size away.
func (s *ringShard) place(n uint64) *record {
	return (*record)(unsafe.Add(unsafe.Pointer(s.records), n&s.mask*uint64(unsafe.Sizeof(record{}))))
}

// overwritten reports whether the place of record n has been used again, or is about to be.
func (s *ringShard) overwritten(n uint64) bool { return uint64(s.head.Load())-n > s.mask }
