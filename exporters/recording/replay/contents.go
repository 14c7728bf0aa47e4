package replay

import (
	"encoding/binary"
	"fmt"
)

// edge is how many bytes at each end of a block [Options].Edges checks.
const edge = 64

// oddStep is what a word of a pattern adds to the one before, so that contents that were moved are found.
const oddStep = 0x9e3779b97f4a7c15

// seedOf returns the first word of the pattern of an operation, by the mixer of splitmix64.
func seedOf(operation int) uint64 {
	x := uint64(operation+1) * oddStep
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// A part is a range of a block's bytes, which begins at a multiple of 8.
type part struct{ from, to int }

// parts returns those of a block of size bytes that are filled and checked.
func parts(size int, edges bool) [2]part {
	if !edges || size <= 2*edge {
		return [2]part{{0, size}}
	}
	return [2]part{{0, edge}, {(size - edge) &^ 7, size}}
}

// fill fills a block with a pattern.
func fill(b []byte, seed uint64, edges bool) {
	for _, p := range parts(len(b), edges) {
		word := seed + uint64(p.from/8)*oddStep
		to := b[p.from:p.to]
		for ; len(to) >= 8; to = to[8:] {
			binary.LittleEndian.PutUint64(to, word)
			word += oddStep
		}
		for i := range to {
			to[i] = byte(word >> (8 * i))
		}
	}
}

// A wrongByte is one of a block that is not what it was.
type wrongByte struct {
	offset, size int
	is, was      byte
}

func (w *wrongByte) Error() string {
	return fmt.Sprintf("byte %d of %d is %#02x, and was %#02x", w.offset, w.size, w.is, w.was)
}

// check returns the first wrong byte of those that a block kept of size bytes that were filled.
func check(b []byte, size int, seed uint64, edges bool) *wrongByte {
	for _, p := range parts(size, edges) {
		p.to = min(p.to, len(b))
		if p.from >= p.to {
			continue
		}
		word := seed + uint64(p.from/8)*oddStep
		of := b[p.from:p.to]
		for len(of) >= 8 && binary.LittleEndian.Uint64(of) == word {
			of = of[8:]
			word += oddStep
		}
		for i := range of[:min(8, len(of))] {
			if was := byte(word >> (8 * i)); of[i] != was {
				return &wrongByte{p.to - len(of) + i, size, of[i], was}
			}
		}
	}
	return nil
}
