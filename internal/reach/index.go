package reach

import (
	"cmp"
	"slices"
)

// A Block is a live block: the memory that references are looked for to, and in.
type Block struct{ Addr, Size uintptr }

func (b Block) end() uintptr { return b.Addr + b.Size }

func (b Block) has(addr uintptr) bool { return addr-b.Addr < b.Size }

// An index finds blocks by addresses in them. Of two blocks that overlap one is in the other, as those of an allocator are in the blocks
// that it takes from its parent.
type index struct {
	blocks    []Block // by address, and of those at one address the largest first
	place     []int   // of each where it was in what the index was made of
	outer     []int   // of each the innermost that it is in, or none
	low, high uintptr // all are between
}

const none = -1

func newIndex(blocks []Block) *index {
	x := &index{blocks: make([]Block, 0, len(blocks)), place: make([]int, len(blocks)), outer: make([]int, len(blocks)), low: ^uintptr(0)}
	for i := range x.place {
		x.place[i] = i
	}
	slices.SortStableFunc(x.place, func(i, j int) int {
		a, b := blocks[i], blocks[j]
		return cmp.Or(cmp.Compare(a.Addr, b.Addr), cmp.Compare(b.Size, a.Size))
	})
	for i, place := range x.place {
		b := blocks[place]
		x.blocks = append(x.blocks, b)
		x.low, x.high = min(x.low, b.Addr), max(x.high, b.end())
		x.outer[i] = i - 1 // or none
		for o := i - 1; o != none; o = x.outer[o] {
			if x.blocks[o].has(b.Addr) {
				break
			}
			x.outer[i] = x.outer[o]
		}
	}
	return x
}

// within reports quickly whether addr can be in a block.
func (x *index) within(addr uintptr) bool { return addr-x.low < x.high-x.low }

// after returns the first block that begins after addr.
func (x *index) after(addr uintptr) int {
	low, high := 0, len(x.blocks)
	for low < high {
		if middle := (low + high) / 2; x.blocks[middle].Addr <= addr {
			low = middle + 1
		} else {
			high = middle
		}
	}
	return low
}

// find returns the innermost block that has addr, or none.
func (x *index) find(addr uintptr) int {
	i := x.after(addr) - 1
	for i != none && !x.blocks[i].has(addr) {
		i = x.outer[i]
	}
	return i
}

// overlaps reports whether some of size bytes at addr are a block's.
func (x *index) overlaps(addr, size uintptr) bool {
	if x.find(addr) != none {
		return true
	}
	next := x.after(addr)
	return next < len(x.blocks) && x.blocks[next].Addr-addr < size
}

// own calls f with the memory of block i that is not of a block in it.
func (x *index) own(i int, f func(addr, size uintptr)) {
	b := x.blocks[i]
	at := b.Addr
	for j := i + 1; j < len(x.blocks) && b.has(x.blocks[j].Addr); j++ {
		if in := x.blocks[j]; x.outer[j] == i {
			if in.Addr > at {
				f(at, in.Addr-at)
			}
			at = max(at, in.end())
		}
	}
	if b.end() > at {
		f(at, b.end()-at)
	}
}
