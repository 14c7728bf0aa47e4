package debugpage

import (
	"slices"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
)

// distinct returns the Proxies that are to be shown: each once, and none that is a child of another, which is shown with it.
func distinct(of []*alloctrace.Proxy) (list []*alloctrace.Proxy) {
	shown := make(map[*alloctrace.Proxy]bool)
	for _, p := range of {
		for _, c := range p.Children() {
			addFamily(shown, c)
		}
	}
	for _, p := range of {
		if !shown[p] {
			shown[p] = true
			list = append(list, p)
		}
	}
	return list
}

// addFamily adds a Proxy with its children, and theirs.
func addFamily(to map[*alloctrace.Proxy]bool, p *alloctrace.Proxy) {
	to[p] = true
	for _, c := range p.Children() {
		addFamily(to, c)
	}
}

// stacked returns which of Proxies allocate from each of them, or of their children. What they have is a part of what that one has. Those of nil
// allocate from none.
func stacked(of []*alloctrace.Proxy) map[*alloctrace.Proxy][]int {
	shown := make(map[*alloctrace.Proxy]bool)
	for _, p := range of {
		addFamily(shown, p)
	}
	on := make(map[*alloctrace.Proxy][]int)
	for i, p := range of {
		var from *alloctrace.Proxy
		for a := only(p); a != nil && from == nil; a = only(a) {
			if q, ok := a.(*alloctrace.Proxy); ok && shown[q] {
				from = q
			}
		}
		on[from] = append(on[from], i)
	}
	return on
}

// only returns the allocator that another allocates all from, nil if it is not one.
func only(a blockalloc.Allocator) blockalloc.Allocator {
	inner := slices.Collect(blockalloc.Inner(a))
	if len(inner) == 1 {
		return inner[0]
	}
	return nil
}

// withFailures returns the numbers of a Proxy with as many failures as those have that allocate from it, if they have more: what a Limit between them
// refuses it does not know of, and others it has counted as well.
func withFailures(of, above counter.Stats) counter.Stats {
	of.FailedAllocations = max(of.FailedAllocations, above.FailedAllocations)
	of.FailedReallocations = max(of.FailedReallocations, above.FailedReallocations)
	of.FailedFrees = max(of.FailedFrees, above.FailedFrees)
	return of
}
