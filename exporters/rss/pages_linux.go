package rss

import (
	"cmp"
	"encoding/binary"
	"iter"
	"os"
	"slices"

	"github.com/alloctrace/alloctrace/blockalloc"
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

// pages knows which pages are resident.
type pages struct {
	*os.File // /proc/self/pagemap: a word for each page of the address space
	buffer   []byte
	err      error // of the first read that failed; later ones are not tried
}

var pageSize = uintptr(os.Getpagesize())

const (
	wordSize  = 8
	present   = 1 << 63
	exclusive = 1 << 56 // it is mapped once: not the page of zeros, which is no part of RSS
)

func openPages() (*pages, error) {
	f, err := os.Open("/proc/self/pagemap")
	return &pages{File: f, buffer: make([]byte, 64<<10)}, err
}

// resident returns how many bytes of r in m are resident.
func (p *pages) resident(m *mapping, r ranges) (bytes int64) {
	want := uint64(present | exclusive)
	if m.inode {
		want = present // it may be mapped by others as well
	}
	for start, end := range r.within(m.start, m.end) {
		if start == m.start && end == m.end {
			return m.rss
		}
		for page, last := start/pageSize, (end-1)/pageSize; page <= last && p.err == nil; {
			words := p.buffer[:min(uintptr(len(p.buffer)), (last-page+1)*wordSize)]
			page += uintptr(len(words)) / wordSize
			if _, p.err = p.ReadAt(words, int64(page)*wordSize-int64(len(words))); p.err != nil {
				break
			}
			for ; len(words) > 0; words = words[wordSize:] {
				if binary.NativeEndian.Uint64(words)&want == want {
					bytes += int64(pageSize)
				}
			}
		}
	}
	return bytes
}
