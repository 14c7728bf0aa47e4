package blockalloc

import "slices"

// A Mapping is a range of addresses.
type Mapping struct{ Addr, Size uintptr }

// A Mapper is an allocator that knows where its memory is: live, free, and reserved
// address space. So a report on a process's resident memory can attribute it. The list
// is a snapshot in no order, and its ranges may overlap.
type Mapper interface{ Mappings() []Mapping }

var (
	_ Mapper = (*System)(nil)
	_ Mapper = (*Pool)(nil)
	_ Mapper = (*Fixed)(nil)
	_ Mapper = (*Heap)(nil)
	_ Mapper = Null{}
)

// Mappings returns where the memory of a is, and of the allocators below it. Complete
// is false if one of them is no [Mapper] and has none below.
func Mappings(a Allocator) (list []Mapping, complete bool) {
	inner := slices.Collect(Inner(a))
	complete = len(inner) > 0
	if m, ok := a.(Mapper); ok && !isNil(a) {
		list, complete = m.Mappings(), true
	}
	for _, b := range inner {
		more, all := Mappings(b)
		list = append(list, more...)
		complete = complete && all
	}
	return list, complete
}

// Mappings returns the live blocks.
func (s *System) Mappings() []Mapping { return s.live.mappings() }

// Mappings returns the reserved address space, and the blocks that are too large for
// it. Meanwhile those who need a new run wait.
func (p *Pool) Mappings() []Mapping {
	list := p.large().Mappings()
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, a := range p.arenas {
		list = append(list, Mapping{uintptr(a.base), uintptr(len(a.chunks)) * chunkSize})
	}
	return list
}

// Mappings returns the buffer.
func (f *Fixed) Mappings() []Mapping { return []Mapping{{f.memory.Addr(), f.memory.size}} }

// Mappings returns the live blocks. They are in the Go heap, and part of its figures.
func (h *Heap) Mappings() []Mapping { return h.live.mappings() }

// Mappings returns none.
func (Null) Mappings() []Mapping { return nil }

// mappings returns where the live blocks are.
func (r *registry[V]) mappings() (list []Mapping) {
	for i := range r.shards {
		s := &r.shards[i]
		s.mu.Lock()
		for _, e := range s.live {
			list = append(list, Mapping{e.block.addr.Addr(), e.block.size})
		}
		s.mu.Unlock()
	}
	return list
}
