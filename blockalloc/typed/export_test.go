package typed

import "github.com/alloctrace/alloctrace/blockalloc"

// UncheckedVec is a Vec of any type, which NewVec would refuse if it holds Go
// pointers.
func UncheckedVec[T any](mem blockalloc.Allocator) *Vec[T] { return newVec[T](mem) }

// MapProbes returns how many groups of the index a search for a key that is there
// looks at, on average.
func MapProbes[K comparable, V any](m *Map[K, V]) float64 {
	probes, x := 0, &m.table.index
	for i, ok := m.table.entries.next(0); ok; i, ok = m.table.entries.next(i + 1) {
		h := m.hashAt(uint32(i))
		at := x.firstGroup(h)
		for step := uintptr(1); ; step++ {
			probes++
			g, found := x.group(at), false
			for match := g.match(h); match != 0; match &= match - 1 {
				found = found || g.numbers[slotOf(match)] == uint32(i)
			}
			if found {
				break
			}
			at = (at + step) & x.mask
		}
	}
	return float64(probes) / float64(m.Len())
}

// MapPassed returns how often the index has counted that a group was passed.
func MapPassed[K comparable, V any](m *Map[K, V]) (passed int) {
	for i := range m.table.index.mask + 1 {
		passed += int(m.table.index.group(i).passed)
	}
	return passed
}
