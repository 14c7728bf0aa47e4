package counter

import "testing"

// BenchmarkChildren measures Stats of a Counter with many children, each of which has counted a
// little, and how long a child takes from its making to its end.
func BenchmarkChildren(b *testing.B) {
	for name, sizes := range map[string][]uintptr{"of one size": {4096}, "of three": {64, 100, 4096}} {
		b.Run("stats of 100,000 with blocks "+name, func(b *testing.B) {
			var root Counter
			for range 100_000 {
				child := root.Child()
				for _, size := range sizes {
					child.Allocate(size, size)
					child.Free(size, size)
					child.Allocate(size, size)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				root.Stats()
			}
		})
	}
	for _, blocks := range []int{1, 1000} {
		b.Run(map[int]string{1: "life", 1000: "busy life"}[blocks], func(b *testing.B) {
			var root Counter
			b.ReportAllocs()
			for b.Loop() {
				child := root.Child()
				for range blocks {
					child.Allocate(4096, 4096)
					child.Free(4096, 4096)
				}
				child.Fold()
			}
		})
	}
}
