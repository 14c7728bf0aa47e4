package blockalloc_test

import (
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// BenchmarkLimit measures a pair over a FreeList, which is the first, within a bound, and
// ready to wait for that.
func BenchmarkLimit(b *testing.B) {
	layout := blockalloc.BlockLayout(64)
	list := newFreeList(b, new(blockalloc.Heap), layout, 64)
	limit := blockalloc.NewLimit(list, 1<<20)
	pair := func(b *testing.B, a blockalloc.Allocator, allocate func() (blockalloc.Block, error)) {
		b.ReportAllocs()
		for b.Loop() {
			block, err := allocate()
			if err != nil || a.Free(block) != nil {
				b.Fatal(err)
			}
		}
	}
	b.Run("none", func(b *testing.B) {
		pair(b, list, func() (blockalloc.Block, error) { return list.Allocate(layout) })
	})
	b.Run("Allocate", func(b *testing.B) {
		pair(b, limit, func() (blockalloc.Block, error) { return limit.Allocate(layout) })
	})
	b.Run("AllocateContext", func(b *testing.B) {
		pair(b, limit, func() (blockalloc.Block, error) { return limit.AllocateContext(b.Context(), layout) })
	})
}
