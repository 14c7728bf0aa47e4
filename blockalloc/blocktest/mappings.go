package blocktest

import (
	"cmp"
	"slices"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// mappings looks for live blocks where the allocator says that its memory is, if it does.
func (s suite) mappings(t *testing.T) {
	a := s.New(t)
	if _, ok := blockalloc.Mappings(a); !ok {
		return
	}
	var blocks []blockalloc.Block
	for i := range min(s.MaxLive, 8) {
		blocks = append(blocks, allocate(t, a, blockalloc.BlockLayout(s.size>>(i%3))))
	}
	covered(t, a, blocks...)
	for _, b := range slices.Backward(blocks) {
		free(t, a, b)
	}
	large := allocate(t, a, layout(s.fit(16<<20), 1))
	covered(t, a, large)
	free(t, a, large)
}

// covered checks that each block lies in the allocator's mappings.
func covered(t *testing.T, a blockalloc.Allocator, blocks ...blockalloc.Block) {
	t.Helper()
	list, complete := blockalloc.Mappings(a)
	if !complete {
		t.Error("Mappings: not complete any more")
	}
	slices.SortFunc(list, func(a, b blockalloc.Mapping) int { return cmp.Compare(a.Addr, b.Addr) })
	for _, b := range blocks {
		at, end := b.Addr(), b.Addr()+b.Size()
		for _, m := range list {
			if m.Addr <= at && at-m.Addr < m.Size {
				at = m.Addr + m.Size
			}
		}
		if at < end {
			t.Errorf("Mappings: %v is not in it from %#x on: %v", b, at, list)
		}
	}
}
