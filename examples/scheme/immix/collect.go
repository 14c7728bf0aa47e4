package immix

import (
	"cmp"
	"fmt"
	"slices"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// A Collection is what a collection did. All but Objects, Moved, Evacuees, Recyclable and Free are bytes.
type Collection struct {
	Before, Live int64 // of objects when it began, dead ones included, and of live ones
	HeldBefore   int64 // blocks, when it began
	Held         int64 // blocks, when it had ended
	Objects      int64 // live
	Moved        int64 // objects that were evacuated
	Evacuees     int   // blocks whose objects were to be evacuated
	Recyclable   int   // blocks with live objects and holes
	Free         int   // blocks without objects that the heap keeps
}

// Collect finds what is live, and makes room of the rest. It fails only if the allocator
// does not take a block back.
func (h *Heap) Collect() error {
	if h.options.Around == nil {
		h.collect()
		return h.err
	}
	done := false
	h.options.Around(func(a blockalloc.Allocator) Collection {
		h.during, done = a, true
		defer func() { h.during = nil }()
		return h.collect()
	})
	if !done {
		panic("immix: Options.Around has not called collect")
	}
	return h.err
}

func (h *Heap) collect() Collection {
	c := Collection{Before: int64(h.live + h.allocated), HeldBefore: int64(h.held)}
	c.Evacuees = h.selectEvacuees()
	h.prepare()

	t := tracer{h: h, c: &c}
	h.roots(t.visit)
	t.drain()
	if h.options.Weak != nil {
		h.options.Weak(h.moved)
	}
	h.sweep(&c)
	h.last = c
	h.count++
	return c
}

// prepare forgets all marks, and what the last collection has failed in.
func (h *Heap) prepare() {
	h.err = nil
	h.mark ^= markBit // so that nothing is marked
	for _, r := range h.used {
		clear(r.lines[:])
		r.bytes = 0
	}
	for _, r := range h.large {
		r.live = false
	}
	h.recyclable = h.recyclable[:0]
	h.small, h.medium, h.evac, h.hole = bump{}, bump{}, bump{}, nil
}

// selectEvacuees chooses the blocks whose objects are to be moved, and returns how many there are: those with the
// most holes, as long as their objects fit into the free blocks.
func (h *Heap) selectEvacuees() (n int) {
	if h.options.Evacuate == Always {
		for _, r := range h.used {
			r.evacuee = true
		}
		return len(h.used)
	}
	if h.options.Evacuate == Never || len(h.free) == 0 {
		return 0
	}
	candidates, most := h.recyclable, uint32(BlockSize-firstByte)/2 // what is allocated into was needed
	if h.tight {
		candidates, most = h.used, uint32(BlockSize-firstByte)/8*7
	}
	candidates = slices.DeleteFunc(slices.Clone(candidates), func(r *header) bool { return r.bytes > most })
	slices.SortFunc(candidates, func(a, b *header) int {
		return cmp.Or(cmp.Compare(b.holes, a.holes), cmp.Compare(a.bytes, b.bytes))
	})
	room := len(h.free) * int(BlockSize-firstByte)
	for _, r := range candidates {
		if room -= int(r.bytes); room < 0 {
			break
		}
		r.evacuee = true
		n++
	}
	return n
}

// A tracer marks what is reachable.
type tracer struct {
	h *Heap
	c *Collection
}

// visit marks the objects that slots refer to, and changes slots where those have moved.
func (t *tracer) visit(slots []Word) {
	for i := len(slots) - 1; i >= 0; i-- { // a list is then followed by its cdrs, and does not fill the stack
		if w := slots[i]; w.IsRef() {
			slots[i] = t.reach(w)
		}
	}
}

// reach marks the object w, and returns where it is from now on.
func (t *tracer) reach(w Word) Word {
	h := t.h
	if h.options.Check {
		h.check(w)
	}
	o := h.at(w)
	d := *o
	if d&forwarded != 0 {
		return Word(d &^ forwarded)
	}
	if d&markBit == h.mark {
		return w
	}
	d = d&^markBit | h.mark
	size := d.size()
	r := headerOf(unsafe.Pointer(o))
	switch {
	case r.large:
		r.live = true
	case r.evacuee:
		if to, ok := h.evacuate(w, size); ok {
			*o = head(to) | forwarded
			w, o = to, h.at(to)
			t.c.Moved++
			r = headerOf(unsafe.Pointer(o))
		}
		fallthrough // where there is no room, it stays
	default:
		r.markLines(unsafe.Pointer(o), size)
		r.bytes += uint32(size)
	}
	*o = d
	t.c.Objects++
	t.c.Live += int64(size)
	if d&rawBit == 0 && d.count() > 0 {
		h.stack = append(h.stack, w)
	}
	return w
}

func (t *tracer) drain() {
	for n := len(t.h.stack); n > 0; n = len(t.h.stack) {
		w := t.h.stack[n-1]
		t.h.stack = t.h.stack[:n-1]
		t.visit(t.h.Words(w))
	}
}

// evacuate copies the object w into a free block, if there is one.
func (h *Heap) evacuate(w Word, size uintptr) (Word, bool) {
	to, ok := h.evac.take(size)
	if !ok {
		if len(h.free) == 0 && h.options.Evacuate == Always && !h.refused {
			if r, err := h.newBlock(0, false); err == nil {
				h.free = append(h.free, r)
			}
		}
		if len(h.free) == 0 {
			return 0, false
		}
		h.evac = h.popFree().all()
		to, _ = h.evac.take(size)
	}
	copy(h.raw(to, size), h.raw(w, size))
	return to, true
}

func (h *Heap) raw(w Word, size uintptr) []byte {
	return unsafe.Slice((*byte)(unsafe.Pointer(h.at(w))), size)
}

// moved says where the object w is, while a collection asks the owner of weak references.
func (h *Heap) moved(w Word) (Word, bool) {
	d := *h.at(w)
	if d&forwarded != 0 {
		return Word(d &^ forwarded), true
	}
	return w, d&markBit == h.mark
}

// sweep sorts the blocks by what is live in them, and gives back those that are not needed soon.
func (h *Heap) sweep(c *Collection) {
	used, room := h.used, uintptr(0)
	h.used = h.used[:0]
	for _, r := range used {
		r.evacuee = false
		switch free := r.count(); {
		case r.marked == 0:
			h.poison(r, firstByte, BlockSize)
			h.free = append(h.free, r)
			continue
		case free > 0:
			for start, end, ok := r.hole(firstLine); ok; start, end, ok = r.hole(end / LineSize) {
				h.poison(r, start, end)
			}
			h.recyclable = append(h.recyclable, r)
			room += free
		}
		h.used = append(h.used, r)
	}
	clear(used[len(h.used):])
	h.large = slices.DeleteFunc(h.large, func(r *header) bool {
		live := r.live
		if !live {
			h.giveBack(r)
		}
		return !live
	})

	h.live, h.allocated = uintptr(c.Live), 0
	h.allowance = max(h.options.Allowance, c.Live)
	h.reserve = max(minReserve, len(h.used)/32)
	for keep := h.reserve + int(h.allowance/2/BlockSize); len(h.free) > keep; {
		r := h.free[len(h.free)-1]
		h.free = h.free[:len(h.free)-1]
		h.giveBack(r)
	}
	for len(h.free) < h.reserve && !h.refused {
		r, err := h.newBlock(0, false)
		if err != nil {
			break
		}
		h.free = append(h.free, r)
	}
	h.emergency = h.emergency && len(h.free) < h.reserve
	h.room = room + uintptr(max(0, len(h.free)-h.reserve))*BlockSize
	c.Held, c.Recyclable, c.Free = int64(h.held), len(h.recyclable), len(h.free)
}

// giveBack releases a block. One that the allocator does not take back is not used again, and Close tries again.
func (h *Heap) giveBack(r *header) {
	if err := h.release(r); err != nil {
		h.err = fmt.Errorf("immix: Collect: a block cannot be given back: %w", err)
	}
	h.refused = false
}

const poisonByte = 0xdd

func (h *Heap) poison(r *header, start, end uintptr) {
	if !h.options.Check {
		return
	}
	b := h.raw(refTo(r.number, start), end-start)
	for i := range b {
		b[i] = poisonByte
	}
}

// check panics if w does not refer to an object.
func (h *Heap) check(w Word) {
	n := w.block()
	if int(n) >= len(h.blocks) || h.blocks[n].IsZero() {
		panic(fmt.Sprintf("immix: dangling reference %#x: its block was freed: tell the collector of the root that kept it", w))
	}
	if o := uintptr(w) & offsetMask; o < firstByte || o >= BlockSize {
		panic(fmt.Sprintf("immix: reference %#x into no object", w))
	}
	if *h.at(w) == poisoned {
		panic(fmt.Sprintf("immix: dangling reference %#x: it refers to free lines: tell the collector of the root that kept the object", w))
	}
}

const poisoned head = poisonByte * 0x0101010101010101
