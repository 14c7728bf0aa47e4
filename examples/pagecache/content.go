package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
)

// A page begins with its number, its generation and a checksum, 4 bytes each. The rest is random numbers that follow
// from the first two. So any page can be checked by itself, and a stale one shows by its generation.
const headerSize = 16

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

var errCorrupt = errors.New("the page is corrupt")

// fill writes the content of a page of that generation.
func fill(b []byte, page, generation uint32) {
	binary.LittleEndian.PutUint32(b, page)
	binary.LittleEndian.PutUint32(b[4:], generation)
	binary.LittleEndian.PutUint32(b[12:], 0)
	x := uint64(page)<<32 | uint64(generation) | 1<<63
	for i := headerSize; i < len(b); i += 8 { // Marsaglia's xorshift
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		binary.LittleEndian.PutUint64(b[i:], x)
	}
	binary.LittleEndian.PutUint32(b[8:], checksum(b))
}

// generationOf returns the generation of a page, if it is that page and whole.
func generationOf(b []byte, page uint32) (uint32, error) {
	if got := binary.LittleEndian.Uint32(b); got != page {
		return 0, fmt.Errorf("page %d: %w: its number is %d", page, errCorrupt, got)
	}
	if got, want := binary.LittleEndian.Uint32(b[8:]), checksum(b); got != want {
		return 0, fmt.Errorf("page %d: %w: its checksum is %08x, want %08x", page, errCorrupt, got, want)
	}
	return binary.LittleEndian.Uint32(b[4:]), nil
}

func checksum(b []byte) uint32 {
	return crc32.Update(crc32.Checksum(b[:8], castagnoli), castagnoli, b[12:])
}
