package history

import (
	"container/heap"
	"slices"
)

// Found is the blocks that somebody looked for.
type Found struct {
	Matched Amount  `json:"matched"` // all of them
	Live    Amount  `json:"live"`    // of them, at the end
	Blocks  []Block `json:"blocks"`  // the first of them
	Unknown Unknown `json:"unknown"`
}

// FindBlocks reads a recording, and returns the first n of the blocks that match, or all if n is less than 0. Order compares two of
// them, as in [slices.SortFunc]. Ended of o is not used.
func FindBlocks(r *Recording, match func(b *Block) bool, order func(a, b *Block) int, n int, o Options) *Found {
	f := new(Found)
	kept := &heapOf{order: order}
	o.Ended = func(b Block) {
		if !match(&b) {
			return
		}
		f.Matched.add(1, int64(b.Size))
		if b.Live {
			f.Live.add(1, int64(b.Size))
		}
		switch {
		case n < 0 || kept.Len() < n:
			heap.Push(kept, b)
		case n > 0 && order(&b, &kept.list[0]) < 0:
			kept.list[0] = b
			heap.Fix(kept, 0)
		}
	}
	h := r.Read(o)
	f.Unknown = h.Unknown()
	slices.SortStableFunc(kept.list, func(a, b Block) int { return order(&a, &b) })
	f.Blocks = kept.list
	return f
}

// A heapOf has the last of its blocks first.
type heapOf struct {
	list  []Block
	order func(a, b *Block) int
}

func (h *heapOf) Len() int           { return len(h.list) }
func (h *heapOf) Less(i, j int) bool { return h.order(&h.list[i], &h.list[j]) > 0 }
func (h *heapOf) Swap(i, j int)      { h.list[i], h.list[j] = h.list[j], h.list[i] }
func (h *heapOf) Push(b any)         { h.list = append(h.list, b.(Block)) }
func (h *heapOf) Pop() any           { panic("history: blocks are replaced") }
