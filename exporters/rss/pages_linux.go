package rss

import (
	"cmp"
	"iter"
	"slices"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/internal/pagemap"
)

// ranges are ranges of addresses by address, apart from each other.
type ranges []blockalloc.Mapping

// union returns the ranges that cover what is in list.
func union(list []blockalloc.Mapping) ranges {
	list = slices.Clone(list)
	slices.SortFunc(list, func(a, b blockalloc.Mapping) int { return cmp.Compare(a.Addr, b.Addr) })
	u := list[:0]
	for _, r := range list {
		if r.Size == 0 {
			continue
		}
		if n := len(u) - 1; n >= 0 && r.Addr-u[n].Addr <= u[n].Size {
			u[n].Size = max(u[n].Size, r.Addr-u[n].Addr+r.Size)
			continue
		}
		u = append(u, r)
	}
	return ranges(u)
}

func (r ranges) size() (bytes int64) {
	for _, m := range r {
		bytes += int64(m.Size)
	}
	return bytes
}

// within returns what of r is from start to end.
func (r ranges) within(start, end uintptr) iter.Seq2[uintptr, uintptr] {
	i, _ := slices.BinarySearchFunc(r, start, func(m blockalloc.Mapping, start uintptr) int {
		return cmp.Compare(m.Addr+m.Size-1, start)
	})
	return func(yield func(start, end uintptr) bool) {
		for ; i < len(r) && r[i].Addr < end; i++ {
			if !yield(max(r[i].Addr, start), min(r[i].Addr+r[i].Size, end)) {
				return
			}
		}
	}
}

// residentIn returns how many bytes of r in m are resident.
func residentIn(pages *pagemap.File, m *mapping, r ranges) (bytes int64) {
	want := pagemap.Present | pagemap.Exclusive
	if m.inode {
		want = pagemap.Present // it may be mapped by others as well
	}
	for start, end := range r.within(m.start, m.end) {
		if start == m.start && end == m.end {
			return m.rss
		}
		for _, word := range pages.Words(start, end) {
			if word.Has(want) {
				bytes += int64(pagemap.PageSize)
			}
		}
	}
	return bytes
}
