package memlimit

import (
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
)

// Pool returns a [counter.Source] of what p has off-heap: its live blocks, and the freed ones
// that keep their memory for reuse, which the numbers of a Proxy on top leave out. Under the
// race detector, and where there is no memory but the Go heap's, that is nothing.
// Its cost is that of [blockalloc.Pool.Stats].
func Pool(p *blockalloc.Pool) counter.Source {
	return Bytes(func() int64 {
		if poolOnGoHeap {
			return 0
		}
		s := p.Stats()
		return s.LiveBytes + s.Cached
	})
}

// onGoHeap reports whether all memory of s is in the Go heap, where the runtime counts it. It
// knows those that lead to their allocators, as a Proxy does.
func onGoHeap(s counter.Source) bool {
	p, ok := s.(interface{ Unwrap() blockalloc.Allocator })
	return ok && allocatesOnGoHeap(p.Unwrap())
}

func allocatesOnGoHeap(a blockalloc.Allocator) bool {
	switch a.(type) {
	case *blockalloc.Heap:
		return true
	case *blockalloc.Pool:
		return poolOnGoHeap
	}
	found := false
	for inner := range blockalloc.Inner(a) {
		if !allocatesOnGoHeap(inner) {
			return false
		}
		found = true
	}
	return found
}
