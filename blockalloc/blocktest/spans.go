package blocktest

import (
	"cmp"
	"fmt"
	"slices"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// spans are blocks that do not overlap, sorted by address, each with a value.
type spans[V any] []span[V]

type span[V any] struct {
	start, end uintptr // end is the first address after the block
	value      V
}

// find returns the index of the block that starts at addr, or where it belongs.
func (s spans[V]) find(addr uintptr) (int, bool) {
	return slices.BinarySearchFunc(s, addr, func(e span[V], addr uintptr) int { return cmp.Compare(e.start, addr) })
}

// insert returns an error if b overlaps a block that is there.
func (s *spans[V]) insert(b blockalloc.Block, v V) error {
	start, end := b.Addr(), b.Addr()+b.Size()
	i, _ := s.find(start)
	for _, j := range [...]int{i - 1, i} {
		if j >= 0 && j < len(*s) && (*s)[j].start < end && start < (*s)[j].end {
			return fmt.Errorf("%v overlaps a live block of %d bytes at %#x", b, (*s)[j].end-(*s)[j].start, (*s)[j].start)
		}
	}
	*s = slices.Insert(*s, i, span[V]{start, end, v})
	return nil
}

// at returns the value of the block that starts at addr.
func (s spans[V]) at(addr uintptr) (V, bool) {
	i, ok := s.find(addr)
	if !ok {
		var none V
		return none, false
	}
	return s[i].value, true
}

// holding returns the value of the block that holds addr.
func (s spans[V]) holding(addr uintptr) (V, bool) {
	i, ok := s.find(addr)
	if !ok {
		i--
	}
	if i < 0 || addr >= s[i].end {
		var none V
		return none, false
	}
	return s[i].value, true
}

// remove removes the block that starts at addr.
func (s *spans[V]) remove(addr uintptr) {
	if i, ok := s.find(addr); ok {
		*s = slices.Delete(*s, i, i+1)
	}
}

// within reports whether b lies inside one of the blocks.
func (s spans[V]) within(b blockalloc.Block) bool {
	i, ok := s.find(b.Addr())
	if !ok {
		i--
	}
	return i >= 0 && b.Addr()+b.Size() <= s[i].end
}

// has reports whether there is a block of b's address and size.
func (s spans[V]) has(b blockalloc.Block) bool {
	i, ok := s.find(b.Addr())
	return ok && b.Addr()+b.Size() == s[i].end
}
