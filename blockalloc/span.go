package blockalloc

import (
	"math/bits"
	"slices"
)

// A Span is memory that an allocator has cut into blocks of one size: a run of a [Pool], or a block of its
// parent's that a [Slab] has cut into slots. What is free of it serves blocks of that size alone, until all of it is free:
// its live blocks pin it.
type Span struct {
	Addr uintptr // of its first byte
	Size uintptr // bytes
	Free uintptr // bytes of it in no live block, from 0 to Size: freed blocks, with memory behind them or not, and what fits no block

	Block  uintptr // bytes of each of its blocks; 0 if they differ
	Cached uintptr // bytes of Free that still have memory behind them, for reuse: all of them if the allocator does not know, as a Slab
}

// A Spanner is an [Allocator] that carves memory into spans.
//
// Spans yields each span once, in no order. At rest their sizes and free bytes are those of Stats. While others
// allocate and free, each span is as it was at some moment during the call, and those that come or go meanwhile
// may be missing. Memory that two of them have one after the other can be in both. Spans holds no lock while it yields, and
// stops when yield returns false.
type Spanner interface {
	Spans(yield func(Span) bool)
}

var (
	_ Spanner = (*Pool)(nil)
	_ Spanner = (*Slab)(nil)
)

// Spans yields the Pool's runs. Their free bytes are Carved less LiveBytes of [PoolStats]: blocks that
// come straight from System are in no run. It costs some tens of nanoseconds a run, and takes eight bytes for each chunk of 64 MiB
// (4 MiB with 32-bit addresses). Those who need a new run wait while it reads a chunk: ten microseconds for the 256 runs that it has at most.
func (p *Pool) Spans(yield func(Span) bool) {
	var spans []Span
	for _, c := range p.allChunks() {
		spans = p.appendSpans(spans[:0], c)
		for _, s := range spans {
			if !yield(s) {
				return
			}
		}
	}
}

func (p *Pool) allChunks() []*chunk {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.chunks)
}

// appendSpans appends the runs of c, which has none once it was released.
func (p *Pool) appendSpans(to []Span, c *chunk) []Span {
	p.mu.Lock()
	defer p.mu.Unlock()
	for r := range c.all() {
		free := r.free.Load()
		to = append(to, Span{uintptr(r.base), r.bytes(), uintptr(bits.OnesCount64(free)) << r.shift, 1 << r.shift, uintptr(r.dirty(free)) << r.shift})
	}
	return to
}

// spanBatch is how many blocks of a Slab are confirmed under one lock.
const spanBatch = 64

// Spans yields the blocks of the parent's that the Slab has cut. Their free bytes are BlockBytes less LiveSlotBytes of
// [SlabStats]. It costs some 50 nanoseconds a block, and 100 more for each 1,000 slots of it. It takes eight bytes for each block of
// the class that has most. Those who need a block of the class that it reads wait while it copies that list: a microsecond
// for some 5,000 blocks.
func (s *Slab) Spans(yield func(Span) bool) {
	var blocks []*slabBlock
	var spans []Span
	for i := range s.classes {
		c := &s.classes[i]
		blocks = c.appendBlocks(blocks[:0])
		for batch := range slices.Chunk(blocks, spanBatch) {
			spans = c.appendSpans(spans[:0], batch)
			for _, s := range spans {
				if !yield(s) {
					return
				}
			}
		}
	}
}

func (c *slabClass) appendBlocks(to []*slabBlock) []*slabBlock {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append(to, c.blocks...)
}

// appendSpans appends those of blocks that c still has once they were read. A block that goes back to the parent is
// dropped first: its memory may be anybody's by now.
func (c *slabClass) appendSpans(to []Span, blocks []*slabBlock) []Span {
	var free [spanBatch]uintptr
	for i, h := range blocks {
		free[i] = h.mem.size - uintptr(h.liveSlots())*h.size
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, h := range blocks {
		if h.index < len(c.blocks) && c.blocks[h.index] == h {
			to = append(to, Span{h.mem.Addr(), h.mem.size, free[i], h.size, free[i]})
		}
	}
	return to
}
