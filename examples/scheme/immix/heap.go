// Package immix is a garbage-collected heap for a virtual machine, in blocks of any blockalloc.Allocator:
// mark-region collection after Blackburn and McKinley, "Immix: A Mark-Region Garbage Collector
// with Space Efficiency, Fast Collection, and Mutator Performance" (PLDI 2008).
//
// A block has 32 KiB and is aligned to that, so that masking a pointer into it gives its header. It
// is divided into lines of 128 bytes. Allocation bumps a pointer through holes: runs of lines
// in which the last collection found nothing live, in partly live blocks first, and
// then in free ones. A collection traces what the roots reach, and marks objects and lines. It moves the
// objects of the emptiest blocks together if there is room to copy them to.
package immix

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// Options of a [Heap]. The zero value is right for programs.
type Options struct {
	Allowance int64 // bytes allocated between two collections, at least: 0 is 1 MiB. Where more is live, it is as much as is live.
	Evacuate  Evacuation

	// Weak, if not nil, is called when all that is live has been marked. It may ask for each
	// object that it knows where it is now, and whether it is still live.
	Weak func(moved func(Word) (Word, bool))

	// Around, if not nil, is called for each collection, and calls collect once with the
	// allocator that is to be used meanwhile, or nil for the usual one.
	Around func(collect func(blockalloc.Allocator) Collection)

	Stress bool // collect at every allocation
	Check  bool // fill free memory with 0xdd, and panic at a collection if a live slot refers to it
}

// An Evacuation says of which blocks a collection moves the objects.
type Evacuation int

const (
	Fragmented Evacuation = iota // those that are half empty, and were so much that nothing needed their holes
	Never
	Always // all, as far as there is room
)

// A Heap allocates objects. It has memory only in blocks of its allocator, but for tables with a
// few words a block, and the mark stack. It is for one goroutine at a time.
type Heap struct {
	memory  func() blockalloc.Allocator
	during  blockalloc.Allocator // the allocator of the collection under way, nil otherwise
	roots   func(visit func([]Word))
	options Options

	bases   []unsafe.Pointer   // of blocks, by number
	blocks  []blockalloc.Block // empty if it was freed
	numbers []uint32           // of freed blocks, the oldest first
	held    uintptr            // bytes of all blocks

	used       []*header // blocks with objects
	recyclable []*header // those of used whose holes are not yet in use
	free       []*header
	large      []*header

	small     bump // in the current hole
	hole      *header
	medium    bump // in a block that was free: for objects above a line that do not fit the hole
	evac      bump // where a collection moves objects to
	reserve   int  // how many free blocks are kept to evacuate into
	emergency bool // out of memory: the reserve may be used up, until a collection has filled it again
	tight     bool // the next collection follows one that has not found enough room
	refused   bool // the allocator had no memory for a block, and none was given back to it since

	mark      head // markBit or 0: what a live object's mark equals
	stack     []Word
	room      uintptr // bytes of holes and of free blocks but the reserve, likewise
	live      uintptr // bytes of live objects, at the end of the last collection
	allocated uintptr // bytes of objects since then
	allowance int64   // what may be allocated until the next, in bytes of holes
	last      Collection
	count     int
	hashes    uint32
	err       error // of a Free that failed in the last collection
}

// New returns a Heap that takes blocks from memory(), which is asked each time. What is allocated there must be freed
// through any other allocator that it returns. The function roots must call visit with all slots outside the heap that
// refer into it. A collection changes them where objects move.
func New(memory func() blockalloc.Allocator, roots func(visit func([]Word)), o Options) *Heap {
	if memory == nil || roots == nil {
		panic("immix: New: pass the allocator and the roots")
	}
	if o.Allowance <= 0 {
		o.Allowance = 1 << 20
	}
	return &Heap{memory: memory, roots: roots, options: o, allowance: o.Allowance, reserve: minReserve, mark: markBit}
}

const (
	minReserve = 2
	minRoom    = 64 // the part of the heap that a collection must make free if the allocator has nothing left
)

func (h *Heap) allocator() blockalloc.Allocator {
	if h.during != nil {
		return h.during
	}
	return h.memory()
}

// A bump is a run of free bytes in one block.
type bump struct{ next, end Word }

func (b *bump) take(size uintptr) (Word, bool) {
	w := b.next
	if w+Word(size) > b.end {
		return 0, false
	}
	b.next += Word(size)
	return w, true
}

// NewWords returns an object of n Words, all of them fill. It may collect, so that
// only roots are valid afterwards: fill is put where it is then. The error wraps
// [blockalloc.ErrOutOfMemory] if there is no memory even after a collection.
func (h *Heap) NewWords(k Kind, n int, fill *Word) (Word, error) {
	if n < 0 || uintptr(n) > maxCount/wordSize {
		return 0, tooLarge("NewWords", n)
	}
	w, err := h.allocate(newHead(k, 0, n))
	if err != nil {
		return 0, err
	}
	words := h.Words(w)
	for i := range words {
		words[i] = *fill
	}
	return w, nil
}

// NewBytes returns an object of n bytes, which are not cleared. It may collect.
func (h *Heap) NewBytes(k Kind, n int) (Word, error) {
	if n < 0 || uintptr(n) > maxCount {
		return 0, tooLarge("NewBytes", n)
	}
	return h.allocate(newHead(k, rawBit, n))
}

// maxCount keeps sizes within 32 bits, and what the largest object takes within what an allocator may be asked for.
const maxCount = 1 << 30

func tooLarge(op string, n int) error {
	return fmt.Errorf("immix: %s: %w: no object has a size of %d", op, blockalloc.ErrOutOfMemory, n)
}

// allocate returns an object with this head, whose contents are whatever was there.
func (h *Heap) allocate(d head) (Word, error) {
	if h.options.Stress {
		if err := h.Collect(); err != nil {
			return 0, err
		}
	}
	size := d.size()
	w, ok := Word(0), false
	if size <= LargeSize {
		w, ok = h.small.take(size)
	}
	if !ok {
		var err error
		if w, err = h.allocateSlow(size); err != nil {
			return 0, err
		}
	}
	h.allocated += size
	*h.at(w) = d | h.mark
	return w, nil
}

func (h *Heap) allocateSlow(size uintptr) (Word, error) {
	if h.allowance <= 0 {
		if err := h.Collect(); err != nil {
			return 0, err
		}
	}
	w, err := h.find(size)
	for range 2 {
		if err == nil || !errors.Is(err, blockalloc.ErrOutOfMemory) {
			break
		}
		if err := h.Collect(); err != nil {
			return 0, err
		}
		h.tight = true // the second knows how full the first has found the blocks, and moves objects together
		if size <= LargeSize && h.room < h.held/minRoom && !h.emergency {
			continue // else collections would soon take most of the time
		}
		w, err = h.find(size)
	}
	h.tight = false
	if errors.Is(err, blockalloc.ErrOutOfMemory) && size <= LargeSize {
		h.emergency = true
	}
	return w, err
}

// find returns room for size bytes without a collection.
func (h *Heap) find(size uintptr) (Word, error) {
	if size > LargeSize {
		r, err := h.newBlock(size, true)
		if err != nil {
			return 0, err
		}
		h.large = append(h.large, r)
		h.allowance -= int64(size)
		return refTo(r.number, firstByte), nil
	}
	if size > LineSize {
		if w, ok := h.medium.take(size); ok {
			return w, nil
		}
		r, err := h.takeFree()
		if err != nil {
			return 0, err
		}
		h.medium = r.all()
		w, _ := h.medium.take(size)
		return w, nil
	}
	for {
		if w, ok := h.small.take(size); ok {
			return w, nil
		}
		if !h.nextHole() {
			r, err := h.takeFree()
			if err != nil {
				return 0, err
			}
			h.small, h.hole = r.all(), nil
		}
	}
}

// all is the whole of a free block.
func (r *header) all() bump {
	return bump{refTo(r.number, firstByte), refTo(r.number+1, 0)}
}

// nextHole moves the small bump to the next hole, and reports whether there was one.
func (h *Heap) nextHole() bool {
	from := uintptr(firstLine)
	if h.hole != nil {
		from = (uintptr(h.small.end-1)&offsetMask)/LineSize + 1
	}
	for {
		if h.hole != nil {
			if start, end, ok := h.hole.hole(from); ok {
				h.small = bump{refTo(h.hole.number, start), refTo(h.hole.number, 0) + Word(end)}
				h.allowance -= int64(end - start)
				return true
			}
			h.hole = nil
		}
		if len(h.recyclable) == 0 {
			return false
		}
		h.hole = h.recyclable[len(h.recyclable)-1]
		h.recyclable = h.recyclable[:len(h.recyclable)-1]
		from = firstLine
	}
}

// takeFree returns a free block, which is then in use. It leaves the reserve, but for an emergency.
func (h *Heap) takeFree() (*header, error) {
	for len(h.free) <= h.reserve && !(h.emergency && len(h.free) > 0) {
		r, err := h.newBlock(0, false)
		if err != nil {
			return nil, err
		}
		h.free = append(h.free, r)
	}
	h.allowance -= BlockSize
	return h.popFree(), nil
}

func (h *Heap) popFree() *header {
	n := len(h.free) - 1
	r := h.free[n]
	h.free = h.free[:n]
	h.used = append(h.used, r)
	return r
}

// Held is how many bytes of blocks the heap has.
func (h *Heap) Held() int64 { return int64(h.held) }

// Last returns the figures of the last collection, and how many there were.
func (h *Heap) Last() (Collection, int) { return h.last, h.count }

// Close gives all blocks back. All references are invalid then.
func (h *Heap) Close() error {
	var errs []error
	for number, b := range h.blocks {
		if !b.IsZero() {
			if err := h.release((*header)(h.bases[number])); err != nil {
				errs = append(errs, err)
			}
		}
	}
	h.used, h.free, h.large, h.recyclable, h.stack = nil, nil, nil, nil, nil
	h.small, h.medium, h.hole = bump{}, bump{}, nil
	return errors.Join(errs...)
}
