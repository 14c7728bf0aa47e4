// Package stored lets package hooks/blackbox give a ring.Ring memory that outlives the process. Users of package ring
// see nothing of it.
package stored

import "sync/atomic"

// A Record is an event as it lies in a Ring: the complement of its address, then its size, the number of its child, alignment and kind packed, then
// its time, then its number and epoch, which is written last.
type Record [4]atomic.Uint64

// The second word of a Record has, from the highest bits, the size, the number of the child, the binary logarithm of the
// alignment, and the kind.
const (
	KindBits  = 4
	AlignBits = 7
	ChildBits = 13

	AlignShift = KindBits
	ChildShift = AlignShift + AlignBits
	SizeShift  = ChildShift + ChildBits

	// Overflowed is a kind: the event does not fit into a Record, and has the number that the other bits are.
	Overflowed = 1<<KindBits - 1

	// Overflows is how many events that do not fit into a Record are kept.
	Overflows = 64
)

// The last word of a Record has the lower half of its number, and that of its epoch above.
const EpochShift = 32

// An Overflow is an event that does not fit into a Record.
type Overflow struct {
	Kind              uint8
	Addr, Size, Align uintptr
	Child, Err        string // Err is the text of its error, "" if it has none
}

// A Storage is where a Ring keeps what outlives it. Its methods are called one at a time, by who allocates.
type Storage interface {
	// Shard returns the first of the zeroed Records of a shard: there is one for each number below shard.NumProcs, and one for
	// processors beyond. It is called once for each shard, or twice if two goroutines come at once.
	Shard(i int) *Record

	// Name keeps the name of the child that has the next number, from 1 on. It reports whether there was room for it.
	Name(name string) bool

	// Keep keeps the event that overflowed as the one with this number, from 1 on, and may forget the one Overflows before.
	Keep(number uint64, o Overflow)
}

// NewRing returns a *ring.Ring that keeps so many events of each processor, a power of two, in a Storage. clock is a ring.Clock.
// Package ring sets it.
var NewRing func(events int, clock any, s Storage) any
