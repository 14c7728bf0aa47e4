package debugpage

import (
	"cmp"
	"slices"
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/internal/pagemap"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// memory knows what of the free bytes of spans has memory behind it: as the kernel says, where it can be asked, or else as their allocator does.
type memory struct{ pages *pagemap.File } // nil if the kernel cannot be asked

// probe is in memory.
var probe atomic.Uint32

func openMemory() *memory {
	pages, err := pagemap.Open()
	if err != nil {
		return new(memory)
	}
	probe.Store(1)
	at := uintptr(unsafe.Pointer(&probe))
	for _, word := range pages.Words(at, at+1) {
		if word.Has(pagemap.Present) {
			return &memory{pages}
		}
	}
	_ = pages.Close() // it says nothing of this process, as under qemu
	return new(memory)
}

// close closes m.
func (m *memory) close() {
	if m.pages != nil {
		_ = m.pages.Close() // it was only read
	}
}

// known reports whether m knows it of the spans of an allocator.
func (m *memory) known(of blockalloc.Spanner) bool {
	_, slab := of.(*blockalloc.Slab) // which says that all of it has
	return !slab || m.pages != nil && m.pages.Err() == nil
}

// An extent is a range of addresses that is not free: a block that was sampled, or memory that another allocator has cut into spans of its own.
type extent struct{ addr, size uintptr }

func (e extent) end() uintptr { return e.addr + e.size }

// dirty returns how many of the free bytes of a span have memory behind them. Used is what is not free of it, by address, apart from each other. Where
// only some blocks are sampled, what others have counts as free if it has no memory yet.
func (m *memory) dirty(s blockalloc.Span, used []extent) uintptr {
	if m.pages == nil || s.Cached == 0 {
		return s.Cached
	}
	var clean, live uintptr // of the pages without memory: bytes, and those of them that are used
	for page, word := range m.pages.Words(s.Addr, s.Addr+s.Size) {
		if word&(pagemap.Present|pagemap.Swapped) != 0 {
			continue
		}
		start, end := max(page, s.Addr), min(page+pagemap.PageSize, s.Addr+s.Size)
		for len(used) > 0 && used[0].end() <= start {
			used = used[1:]
		}
		clean += end - start
		for i := 0; i < len(used) && used[i].addr < end; i++ {
			live += min(end, used[i].end()) - max(start, used[i].addr)
		}
	}
	clean -= min(live, s.Size-s.Free) // some of which may have been freed since
	return min(s.Cached, s.Free-min(s.Free, clean))
}

// usedBy returns what is used by blocks, and by the spans of allocators that have their memory from the one that is looked at.
func usedBy(blocks []heapprofile.Block, spans []extent) (list []extent) {
	all := make([]extent, 0, len(blocks)+len(spans))
	for i := range blocks {
		all = append(all, extent{blocks[i].Addr, blocks[i].Size})
	}
	all = append(all, spans...)
	slices.SortFunc(all, func(a, b extent) int { return cmp.Or(cmp.Compare(a.addr, b.addr), cmp.Compare(b.size, a.size)) })
	for _, e := range all {
		if n := len(list); n > 0 && e.addr < list[n-1].end() { // a block of a span, or one that was freed meanwhile
			if e.end() <= list[n-1].end() {
				continue
			}
			e = extent{list[n-1].end(), e.end() - list[n-1].end()}
		}
		list = append(list, e)
	}
	return list
}

// within returns those of extents by address that begin from start to before end.
func within(list []extent, start, end uintptr) []extent {
	at := func(addr uintptr) int {
		i, _ := slices.BinarySearchFunc(list, addr, func(e extent, addr uintptr) int { return cmp.Compare(e.addr, addr) })
		return i
	}
	return list[at(start):at(end)]
}
