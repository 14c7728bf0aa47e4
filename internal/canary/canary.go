// Package canary writes a pattern around blocks of memory and finds what has overwritten it. Offsets
// are in bytes from the start of the block, and below zero before it.
package canary

import "bytes"

// pattern is what is written around blocks: byte i%16 at offset i. None of its bytes is likely to be
// written by accident.
var pattern = [16]byte{0x9b, 0xb7, 0xe5, 0x8f, 0xd3, 0xa9, 0xf1, 0xc7, 0x95, 0xbb, 0xed, 0x87, 0xd9, 0xa3, 0xf5, 0xcb}

// repeated is the pattern repeated.
var repeated = [256]byte(bytes.Repeat(pattern[:], 256/len(pattern)))

// from returns the bytes of the pattern from an offset on, at most n.
func from(offset, n int) []byte {
	at := repeated[offset&(len(pattern)-1):]
	return at[:min(n, len(at))]
}

func at(offset int) byte { return pattern[offset&(len(pattern)-1)] }

// Write fills mem, which begins at offset, with the pattern.
func Write(mem []byte, offset int) {
	for len(mem) > 0 {
		n := copy(mem, from(offset, len(mem)))
		mem, offset = mem[n:], offset+n
	}
}

// Inspect returns what is wrong with mem, which begins at offset and was written by Write, or nil.
func Inspect(mem []byte, offset int) *Mismatch {
	if intact(mem, offset) {
		return nil
	}
	return compare(mem, offset, at)
}

// intact reports whether mem, which begins at offset, has the pattern.
func intact(mem []byte, offset int) bool {
	for len(mem) > 0 {
		want := from(offset, len(mem))
		if !bytes.Equal(mem[:len(want)], want) {
			return false
		}
		mem, offset = mem[len(want):], offset+len(want)
	}
	return true
}

// A Mismatch is memory from the first wrong byte to the last.
type Mismatch struct {
	Offset      int
	Length      int
	Found, Want []byte // the first few
}

const maxBytes = 8

// Differs returns where mem, the start of a block, has other bytes than v, or nil.
func Differs(mem []byte, v byte) *Mismatch {
	if n := len(mem); n == 0 || mem[0] == v && bytes.Equal(mem[1:], mem[:n-1]) {
		return nil
	}
	return compare(mem, 0, func(int) byte { return v })
}

// compare returns where mem, which begins at offset, is not as wanted, or nil.
func compare(mem []byte, offset int, want func(offset int) byte) *Mismatch {
	var m *Mismatch
	for i, v := range mem {
		if v == want(offset+i) {
			continue
		}
		if m == nil {
			m = &Mismatch{Offset: offset + i}
			for j := i; j < min(i+maxBytes, len(mem)); j++ {
				m.Found = append(m.Found, mem[j])
				m.Want = append(m.Want, want(offset+j))
			}
		}
		m.Length = offset + i + 1 - m.Offset
	}
	if m != nil && m.Length < len(m.Found) {
		m.Found, m.Want = m.Found[:m.Length], m.Want[:m.Length]
	}
	return m
}
