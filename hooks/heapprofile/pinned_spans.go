package heapprofile

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// A span is one of an allocator's. Other spans may be inside of its live blocks, as those of a Slab are inside of blocks of a Pool.
type span struct {
	blockalloc.Span
	inner uintptr // of its live blocks, free in spans inside of them
	outer *span   // the innermost one that it is inside of, nil if there is none

	charge
}

// A charge is what is free in a span, as it is charged to a site.
type charge struct {
	to     *PinnedSite // nil if none of the blocks was sampled
	chance float64     // that one was
	share  float64     // that one was, and the oldest one is the site's, as far as that is known
	bytes  float64     // what is free over that
}

// live is how many bytes of a span are in blocks that no allocator has cut.
func (s *span) live() uintptr {
	live := s.Size - min(s.Size, s.Free)
	return live - min(live, s.inner) // the spans inside may have been read at another moment
}

// spannersOf returns the Spanners among allocators and below them, each once, the outer ones first. It panics if an allocator is nil.
func spannersOf(allocators []blockalloc.Allocator) (list []blockalloc.Spanner) {
	seen := make(map[blockalloc.Allocator]bool)
	var look func(blockalloc.Allocator)
	look = func(a blockalloc.Allocator) {
		if v := reflect.ValueOf(a); v.Comparable() { // nil is, too
			if a == nil || seen[a] {
				return
			}
			seen[a] = true
		}
		if s, ok := a.(blockalloc.Spanner); ok {
			list = append(list, s)
		}
		for inner := range blockalloc.Inner(a) {
			look(inner)
		}
	}
	if len(allocators) == 0 || slices.Contains(allocators, nil) {
		panic("heapprofile: Profile.Pinned of no allocator, or nil: pass the Proxy that the profile observes")
	}
	for _, a := range allocators {
		look(a)
	}
	return list
}

// spansOf returns the spans of one allocator by address. Where it has yielded memory twice, what it has yielded last is
// what was there last.
func spansOf(s blockalloc.Spanner) (list []span) {
	for s := range s.Spans {
		list = append(list, span{Span: s})
	}
	slices.SortStableFunc(list, func(a, b span) int { return cmp.Compare(a.Addr, b.Addr) })
	kept := list[:0]
	for _, s := range list {
		if n := len(kept); n > 0 && s.Addr-kept[n-1].Addr < kept[n-1].Size {
			kept[n-1] = s
			continue
		}
		kept = append(kept, s)
	}
	return kept
}

// typeName returns, for example, Pool.
func typeName(a any) string {
	return strings.TrimPrefix(strings.TrimPrefix(fmt.Sprintf("%T", a), "*"), "blockalloc.")
}

func pinnedIn(s blockalloc.Spanner, spans []span) PinnedIn {
	in := PinnedIn{Name: typeName(s), Spans: int64(len(spans))}
	for _, s := range spans {
		in.Size += int64(s.Size)
		in.Bytes += int64(s.Free)
	}
	return in
}

// nest finds which spans are inside of others. It puts them in the order of their addresses, outer ones first.
func nest(spans []span) {
	slices.SortFunc(spans, func(a, b span) int {
		return cmp.Or(cmp.Compare(a.Addr, b.Addr), cmp.Compare(b.Size, a.Size)) // of two of one size, nothing is free in the outer one
	})
	var last *span
	for i := range spans {
		s := &spans[i]
		for last != nil && s.Addr-last.Addr >= last.Size {
			last = last.outer
		}
		s.outer, last = last, s
		for outer := s.outer; outer != nil; outer = outer.outer {
			outer.inner += s.Free
		}
	}
}
