package measure

import (
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
)

// Atomic additions cost from 3 to 9 ns by the maker of the processor, and other instructions do not follow. So what a
// figure is held against must be made of the same as what it measures: Plain where no processor waits for another,
// Mixed where there are some atomic additions among other instructions.

// Plain is the subject that gives the unit P: the work of one Allocate and Free that are counted in the simplest way
// that the hot path's own resembles, without an atomic addition. It is some 100 instructions: calls through an
// interface, loads and stores of a few words, shifts and branches that go the same way each time.
func Plain() Subject {
	y := newYard(false)
	return Subject{"plain", 2000, func(n int) { work(y, n) }}
}

// Mixed is the subject that gives the unit M: Plain with two atomic additions in each operation.
func Mixed() Subject {
	y := newYard(true)
	return Subject{"mixed", 2000, func(n int) { work(y, n) }}
}

// PlainOn is Plain on several goroutines at once, each with words of its own: as well as anything can scale here. Turn
// is the number of operations of all of them together.
func PlainOn(goroutines, turn int) Subject {
	yards := make([]yardstick, goroutines)
	for i := range yards {
		yards[i] = newYard(false)
	}
	return Subject{fmt.Sprintf("plain_on_%d", goroutines), turn, func(n int) {
		var wg sync.WaitGroup
		for _, y := range yards {
			wg.Go(func() { work(y, n/goroutines) })
		}
		wg.Wait()
	}}
}

type yardstick interface {
	add(size, addr uintptr) uintptr
	remove(size, addr uintptr) uintptr
}

// work does the work of n pairs.
//
//go:noinline
func work(y yardstick, n int) {
	for range n {
		addr := y.add(4096, 0x7f400000)
		y.remove(4096, addr)
	}
}

// A yard is the words that a yardstick works on. They are apart from those of all others.
type yard struct {
	_            [128]byte
	ops          [2][64]uint64 // by what was done and size class
	live, peak   int64
	recent       [16]uintptr
	next, passed uint64
	_            [128]byte
}

// An atomicYard is a yard with two words that are added to atomically.
type atomicYard struct {
	yard
	allocated, freed atomic.Int64
	_                [128]byte
}

func newYard(mixed bool) yardstick {
	if mixed {
		return new(atomicYard)
	}
	return new(yard)
}

func (y *yard) add(size, addr uintptr) uintptr {
	y.count(0, size)
	y.live += int64(size)
	y.peak = max(y.peak, y.live)
	return y.keep(addr)
}

func (y *yard) remove(size, addr uintptr) uintptr {
	addr = y.keep(addr)
	y.count(1, size)
	y.live -= int64(size)
	return addr
}

func (y *atomicYard) add(size, addr uintptr) uintptr {
	addr = y.yard.add(size, addr)
	y.allocated.Add(int64(size))
	return addr
}

func (y *atomicYard) remove(size, addr uintptr) uintptr {
	y.freed.Add(int64(size))
	return y.yard.remove(size, addr)
}

// count adds to the count of a size class, and does more once in 128.
//
//go:noinline
func (y *yard) count(op int, size uintptr) {
	word := &y.ops[op&1][bits.Len64(uint64(size-1))&63]
	*word++
	if *word&127 == 0 {
		y.pass()
	}
}

// keep remembers an address among the last 16.
//
//go:noinline
func (y *yard) keep(addr uintptr) uintptr {
	slot := &y.recent[y.next&15]
	y.next++
	if *slot == addr {
		return addr
	}
	*slot = addr
	return addr
}

//go:noinline
func (y *yard) pass() { y.passed++ }
