// Package spans makes keys for spans of addresses that do not overlap, so that a map finds a span by any
// address in it: in a few look-ups, whose number does not grow with that of the spans.
package spans

import (
	"iter"
	"math/bits"
	"sync/atomic"
)

// Key returns the key of a span of size bytes at addr, at least one: the largest power of two that is not more
// than size, and the number of the piece of that size in which the span begins. As the span is no
// shorter than the piece, no other one begins there.
func Key(addr, size uintptr) uint64 { return keyOf(addr, bits.Len(uint(size))-1) }

// keyOf returns the complement, for of a span of 64 bytes the key would be an address in it: see package hidden.
func keyOf(addr uintptr, level int) uint64 { return ^(uint64(addr>>(level%64))<<6 | uint64(level)) }

// Levels are the powers of two in the keys of many spans. The zero Levels is ready. Several goroutines may
// use it at once. Add a span to it before its key is in the map.
type Levels struct{ bits atomic.Uint64 }

// Add says that there are spans of size bytes. It costs a load.
func (l *Levels) Add(size uintptr) {
	if bit := uint64(1) << (bits.Len(uint(size)) - 1); l.bits.Load()&bit == 0 {
		l.bits.Or(bit)
	}
}

// At yields the keys that a span that begins at addr can have: one for each power of two.
func (l *Levels) At(addr uintptr) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for left := l.bits.Load(); left != 0; left &= left - 1 {
			if !yield(keyOf(addr, bits.TrailingZeros64(left))) {
				return
			}
		}
	}
}

// Around yields the keys that a span that holds addr can have: three for each power of two, for it is less
// than twice as long as its piece. That of a span that is aligned to its size is the first of them.
func (l *Levels) Around(addr uintptr) iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for back := range uintptr(3) {
			for left := l.bits.Load(); left != 0; left &= left - 1 {
				level := bits.TrailingZeros64(left)
				if piece := addr >> level; piece >= back && !yield(keyOf((piece-back)<<level, level)) {
					return
				}
			}
		}
	}
}
