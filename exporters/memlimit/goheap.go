package memlimit

import (
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/counter"
)

// Pool returns a [counter.Source] of the bytes that p has off-heap: its live blocks, and the
// freed ones whose memory it keeps for reuse, which a Proxy does not count. Under the race
// detector, and on systems where a Pool takes its memory from the Go heap, that is 0. A reading
// costs a [blockalloc.Pool.Stats]. Pool panics if p is nil.
func Pool(p *blockalloc.Pool) counter.Source {
	if p == nil {
		panic("memlimit: Pool(nil): pass the Pool that the Proxy allocates from")
	}
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
