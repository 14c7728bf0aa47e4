package recording

import (
	"sync"
	"sync/atomic"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/internal/shard"
)

// A record is an event as it lies in a queue.
type record [recordWords]atomic.Uint64

const (
	recordAddr      = iota // its complement: see package hidden
	recordGranted          // bytes, then the binary logarithm of the alignment, then the kind
	recordRequested        // bytes, of Reallocating the number of the reallocation, then the number of the region's name
	recordTime             // nanoseconds since the Recorder began
	recordWho              // the stack, then the number of the Proxy or child
	recordWords
)

const (
	kindBits   = 4
	alignBits  = 6
	sizeShift  = kindBits + alignBits
	sizeBits   = 48
	maxSize    = 1<<sizeBits - 1
	whoShift   = 32
	numberBits = 16
	maxNumber  = 1<<numberBits - 1

	lost = 1<<kindBits - 1 // a kind: recordRequested is how many events were dropped here
	ends = 1<<kindBits - 2 // a kind: recordRequested is the number of the reallocation that the next record ends
)

// A queue has the records of one processor until the writer takes them. One goroutine writes at a time: who is on the
// processor, or if the queue is shared who holds its lock. One goroutine takes.
//
// Memory ordering: a record is written before head says so, and taken before tail says so.
type queue struct {
	head    atomic.Int64 // records written
	free    uint64       // head may go up to here before tail is looked at again
	dropped atomic.Int64 // events, in all
	said    int64        // of them, how many a record says
	records []record
	shared  bool
	mu      sync.Mutex

	reallocation, step uint64 // the number of the last reallocation that began here, and of the next one what is more
	_                  [64]byte
	tail               atomic.Uint64 // records taken
	_                  [56]byte
}

// newQueue returns the queue of a number, of so many at most: the numbers of reallocations differ by that.
func newQueue(size int, shared bool, number, queues int) *queue {
	return &queue{records: make([]record, size), free: uint64(size), shared: shared, reallocation: uint64(number), step: uint64(queues)}
}

// put writes a record, or counts it as dropped if there is no room. It ends the reallocation began, if that is not 0. It reports whether
// it is time for the records to be taken.
func (q *queue) put(p shard.Proc, addr, granted, requested, at, who, began uint64) (wake bool) {
	head := uint64(q.head.Load())
	if unsaid := uint64(q.dropped.Load() - q.said); unsaid|began > 0 {
		need := head + 1 + min(1, unsaid) + min(1, began)
		if !q.room(need) {
			p.Add(&q.dropped, 1)
			return unsaid == 0
		}
		if unsaid > 0 {
			q.write(p, head, 0, lost, unsaid, at, 0)
			q.said += int64(unsaid)
			head++
		}
		if began > 0 {
			q.write(p, head, 0, ends, began, at, 0)
			head++
		}
	} else if !q.room(head + 1) {
		p.Add(&q.dropped, 1)
		return true
	}
	q.write(p, head, addr, granted, requested, at, who)
	return (head+1)%max(1, uint64(len(q.records))/4) == 0
}

// room reports whether head may go up to need.
func (q *queue) room(need uint64) bool {
	if need > q.free {
		q.free = q.tail.Load() + uint64(len(q.records))
	}
	return need <= q.free
}

// putNumbered is put, and if a reallocation begins it returns its number.
func (q *queue) putNumbered(p shard.Proc, addr, granted, requested, at, who, began uint64) (number uint64, wake bool) {
	if alloctrace.Kind(granted&(1<<kindBits-1)) == alloctrace.Reallocating {
		q.reallocation += q.step
		number = q.reallocation
		requested |= number & maxSize
	}
	return number, q.put(p, addr, granted, requested, at, who, began)
}

func (q *queue) write(p shard.Proc, n, addr, granted, requested, at, who uint64) {
	r := &q.records[n&uint64(len(q.records)-1)]
	p.Store(&r[recordAddr], ^addr)
	p.Store(&r[recordGranted], granted)
	p.Store(&r[recordRequested], requested)
	p.Store(&r[recordTime], at)
	p.Store(&r[recordWho], who)
	p.Add(&q.head, 1)
}
