package immix

import (
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// The sizes of the heap, in bytes, are those of the paper.
const (
	blockShift = 15
	BlockSize  = 1 << blockShift // of a block, and its alignment
	LineSize   = 128
	LargeSize  = 8 << 10 // objects above it have blocks of their own

	lines     = BlockSize / LineSize
	firstLine = (unsafe.Sizeof(header{}) + LineSize - 1) / LineSize // that holds objects
	firstByte = firstLine * LineSize
)

// A header is the beginning of a block. Any pointer into the block leads to it by a mask, because
// the block is aligned to its size. A block of a large object is larger, but the object
// begins in its first 32 KiB.
type header struct {
	number  uint32 // of the block
	holes   uint16 // runs of free lines, at the end of the last collection
	marked  uint16 // lines that were live then
	bytes   uint32 // of live objects, likewise
	large   bool
	live    bool // of a large object: it was marked
	evacuee bool // the collection under way moves its objects elsewhere
	lines   [lines]bool
}

// headerOf returns the header of the block that p points into.
func headerOf(p unsafe.Pointer) *header {
	return (*header)(unsafe.Pointer(uintptr(p) &^ (BlockSize - 1)))
}

// markLines marks the lines of an object of size bytes at p. Of an object that is no longer than a
// line, it marks the first: whoever looks for holes takes the line after a marked one as live.
func (b *header) markLines(p unsafe.Pointer, size uintptr) {
	first := uintptr(p) & offsetMask / LineSize
	b.lines[first] = true
	if size > LineSize {
		for l := first + 1; l <= (uintptr(p)&offsetMask+size-1)/LineSize; l++ {
			b.lines[l] = true
		}
	}
}

// hole returns the first run of free lines from line from on, as offsets of bytes.
func (b *header) hole(from uintptr) (start, end uintptr, ok bool) {
	l := from
	for ; l < lines; l++ {
		// The line after a live one may have the end of an object that began there.
		if !b.lines[l] && (l == firstLine || !b.lines[l-1]) {
			break
		}
	}
	if l >= lines {
		return 0, 0, false
	}
	start = l
	for l < lines && !b.lines[l] {
		l++
	}
	return start * LineSize, l * LineSize, true
}

// count sets holes and marked, and returns how many bytes of holes there are.
func (b *header) count() (free uintptr) {
	b.holes, b.marked = 0, 0
	for _, m := range b.lines {
		if m {
			b.marked++
		}
	}
	for start, end, ok := b.hole(firstLine); ok; start, end, ok = b.hole(end / LineSize) {
		b.holes++
		free += end - start
	}
	return free
}

// newBlock takes a block from the allocator, with room for size bytes of objects. The memory
// limit's error comes back as it is.
func (h *Heap) newBlock(size uintptr, large bool) (*header, error) {
	l := blockalloc.BlockLayout(BlockSize)
	if large {
		l.Size = firstByte + size
	}
	b, err := h.allocator().Allocate(l)
	if !large {
		h.refused = err != nil
	}
	if err != nil {
		return nil, err
	}
	var number uint32
	if len(h.numbers) > numbersKept {
		number = h.numbers[0]
		h.numbers = h.numbers[1:]
		h.blocks[number], h.bases[number] = b, b.Pointer()
	} else {
		number = uint32(len(h.blocks))
		h.blocks, h.bases = append(h.blocks, b), append(h.bases, b.Pointer())
	}
	h.held += b.Size()
	r := (*header)(b.Pointer())
	*r = header{number: number, large: large}
	return r, nil
}

// numbersKept is how many numbers of freed blocks wait for reuse, so that a reference into
// a freed block does not soon lead into another one.
const numbersKept = 64

// release gives a block back to the allocator.
func (h *Heap) release(r *header) error {
	number := r.number
	b := h.blocks[number]
	if err := h.allocator().Free(b); err != nil {
		return err
	}
	h.held -= b.Size()
	h.blocks[number] = blockalloc.Block{}
	if !h.options.Check {
		h.bases[number] = nil // in Go's own heap, it would keep the memory
	}
	h.numbers = append(h.numbers, number)
	return nil
}
