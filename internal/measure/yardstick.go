package measure

import (
	"runtime"
	"sync/atomic"
)

// Atomic additions cost from 3 to 9 ns by the maker of the processor, and other instructions do not follow. So what a
// figure is held against must be of its own kind: Plain where no processor waits for another, Mixed where there are some
// atomic additions among other instructions.
//
// Plain is arithmetic in registers, each instruction of which waits for the one before. That takes the same number of
// cycles on all processors and at all times; instructions that load and store take up to three times as many by where
// words happen to be.

// Plain is the subject that gives the unit P, 48 dependent instructions of one cycle each.
func Plain() Subject {
	return Subject{"plain", 2000, func(n int) { runtime.KeepAlive(plain(n)) }}
}

// Mixed is the subject that gives the unit M, P and two atomic additions, each to a word of its own.
func Mixed() Subject {
	var words [2]struct {
		atomic.Int64
		_ [120]byte
	}
	return Subject{"mixed", 2000, func(n int) { runtime.KeepAlive(mixed(n, &words[0].Int64, &words[1].Int64)) }}
}

//go:noinline
func plain(n int) uint64 {
	x := uint64(n) | 1
	for range n {
		x = rounds(x)
	}
	return x
}

//go:noinline
func mixed(n int, a, b *atomic.Int64) uint64 {
	x := uint64(n) | 1
	for range n {
		x = rounds(x)
		a.Add(int64(x & 1))
		b.Add(int64(x & 1))
	}
	return x
}

// rounds is eight rounds of Marsaglia's xorshift, of six instructions each.
func rounds(x uint64) uint64 {
	x = xorshift(x)
	x = xorshift(x)
	x = xorshift(x)
	x = xorshift(x)
	x = xorshift(x)
	x = xorshift(x)
	x = xorshift(x)
	return xorshift(x)
}

func xorshift(x uint64) uint64 {
	x ^= x << 13
	x ^= x >> 7
	return x ^ x<<17
}
