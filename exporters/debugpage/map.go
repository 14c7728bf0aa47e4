package debugpage

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/exporters/internal/page"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// maxPlaced is how many blocks a map has.
const maxPlaced = 100_000

// A spanner is an allocator whose memory is shown.
type spanner struct {
	blockalloc.Spanner
	name, kind string
}

// spanners returns the allocators with spans below the Proxies and their children, outer ones first.
func (l *live) spanners() (list []spanner) {
	seen := make(map[blockalloc.Allocator]bool)
	numbers := make(map[string]int)
	var look func(a blockalloc.Allocator)
	look = func(a blockalloc.Allocator) {
		if a == nil || !reflect.TypeOf(a).Comparable() || seen[a] {
			return
		}
		seen[a] = true
		if s, ok := a.(blockalloc.Spanner); ok {
			kind := strings.TrimPrefix(strings.TrimPrefix(fmt.Sprintf("%T", a), "*"), "blockalloc.")
			numbers[kind]++
			list = append(list, spanner{s, fmt.Sprintf("%s %d", kind, numbers[kind]), kind})
		}
		for inner := range blockalloc.Inner(a) {
			look(inner)
		}
		if p, ok := a.(*alloctrace.Proxy); ok {
			for _, c := range p.Children() {
				look(c)
			}
		}
	}
	for _, p := range l.proxies {
		look(p)
	}
	return list
}

// memoryMap returns how memory lies.
func (l *live) memoryMap() (*page.Map, error) {
	spanners := l.spanners()
	if len(spanners) == 0 {
		return nil, page.NoData(noSpans)
	}
	var blocks []heapprofile.Block
	if l.o.Profile != nil {
		blocks = l.o.Profile.Blocks()
		slices.SortFunc(blocks, func(a, b heapprofile.Block) int { return cmp.Compare(a.Addr, b.Addr) })
	}
	m := &page.Map{AtUS: l.now(), Allocators: []page.MapAllocator{}}
	at := &mapped{live: l, blocks: blocks, sites: l.newSiteFinder(), memory: openMemory()}
	defer at.memory.close()
	for _, s := range spanners {
		m.Allocators = append(m.Allocators, at.mapOf(s))
	}
	m.Known = l.book.Known()
	return m, nil
}

// mapped is what the maps of allocators are made of.
type mapped struct {
	live   *live
	blocks []heapprofile.Block // by address
	sites  *siteFinder
	memory *memory
	spans  []extent // of the allocators before, by address, which have their memory from those after them
}

// mapOf returns the map of one allocator.
func (m *mapped) mapOf(s spanner) page.MapAllocator {
	a := page.MapAllocator{
		Name: s.name, Kind: s.kind, Span: "span",
		Spans:  page.Spans{Addr: []int64{}, Size: []int64{}, Free: []int64{}, Dirty: []int64{}, Block: []int64{}, Live: []int64{}},
		Blocks: page.Placed{Addr: []int64{}, Size: []int64{}, Span: []int{}, AllocatedUS: []int64{}, Site: []int{}},
	}
	switch of := s.Spanner.(type) {
	case *blockalloc.Pool:
		a.Span, a.Reserved = "run", of.Stats().Reserved
	case *blockalloc.Slab:
		a.Span = "block"
	}
	spans := slices.SortedFunc(s.Spans, func(a, b blockalloc.Span) int { return cmp.Compare(a.Addr, b.Addr) })
	if len(spans) == 0 {
		return a
	}
	a.AddrMin = int64(spans[0].Addr)
	next := 0 // of blocks
	for i, span := range spans {
		for next < len(m.blocks) && m.blocks[next].Addr < span.Addr {
			next++
		}
		first := next
		for next < len(m.blocks) && m.blocks[next].Addr-span.Addr < span.Size {
			next++
		}
		m.place(&a, i, m.blocks[first:next])
		var used []extent
		if span.Cached > 0 {
			used = usedBy(m.blocks[first:next], within(m.spans, span.Addr, span.Addr+span.Size))
		}
		a.Spans.Addr = append(a.Spans.Addr, int64(span.Addr)-a.AddrMin)
		a.Spans.Size = append(a.Spans.Size, int64(span.Size))
		a.Spans.Free = append(a.Spans.Free, int64(span.Free))
		a.Spans.Dirty = append(a.Spans.Dirty, int64(m.memory.dirty(span, used)))
		a.Spans.Block = append(a.Spans.Block, int64(span.Block))
		if span.Block > 0 && a.Spans.Live != nil {
			a.Spans.Live = append(a.Spans.Live, int64((span.Size-span.Free)/span.Block))
		} else {
			a.Spans.Live = nil
		}
	}
	if !m.memory.known(s.Spanner) {
		a.Spans.Dirty = nil
	}
	for _, span := range spans {
		m.spans = append(m.spans, extent{span.Addr, span.Size})
	}
	slices.SortFunc(m.spans, func(a, b extent) int { return cmp.Compare(a.addr, b.addr) })
	return a
}

// place appends blocks that are in a span.
func (m *mapped) place(a *page.MapAllocator, span int, blocks []heapprofile.Block) {
	for i := range blocks {
		b := &blocks[i]
		if len(a.Blocks.Addr) == maxPlaced {
			a.Omitted++
			continue
		}
		a.Blocks.Addr = append(a.Blocks.Addr, int64(b.Addr)-a.AddrMin)
		a.Blocks.Size = append(a.Blocks.Size, int64(b.Size))
		a.Blocks.Span = append(a.Blocks.Span, span)
		a.Blocks.AllocatedUS = append(a.Blocks.AllocatedUS, m.live.us(b.Allocated))
		a.Blocks.Site = append(a.Blocks.Site, m.sites.site(b))
	}
}
