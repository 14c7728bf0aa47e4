package guard

import (
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/internal/canary"
	"github.com/alloctrace/alloctrace/internal/hidden"
	"github.com/alloctrace/alloctrace/internal/pages"
)

// A class is slots of one size, which lie side by side.
type class struct {
	base   unsafe.Pointer // a multiple of stride
	stride uintptr
	slots  []slot
	queue  []uint16 // a ring of the slots without a live block, in the order in which they are reused
	head   int      // of queue
	queued int
}

// newClass returns a class whose base is not known yet.
func newClass(stride uintptr, count int) *class {
	c := &class{stride: stride, slots: make([]slot, count), queue: make([]uint16, count)}
	for i := range c.slots {
		c.slots[i] = slot{mark: hidden.Knowing(), index: uint16(i), sealed: true}
		c.put(&c.slots[i])
	}
	return c
}

// take returns the slot that was given back first, nil if half of the class has live blocks.
func (c *class) take() *slot {
	if c.queued <= len(c.slots)/2 {
		return nil
	}
	at := &c.slots[c.queue[c.head]]
	c.head = (c.head + 1) % len(c.queue)
	c.queued--
	at.state = idle
	return at
}

// put puts a slot behind all others.
func (c *class) put(at *slot) {
	c.queue[(c.head+c.queued)%len(c.queue)] = at.index
	c.queued++
}

// start returns where the pages of a slot begin.
func (c *class) start(at *slot) unsafe.Pointer {
	return unsafe.Add(c.base, uintptr(at.index)*c.stride)
}

// A slot is address space for one block. Its first page is never accessible, and of the others those that a live
// block is in.
type slot struct {
	mark      hidden.Mark // it knows blocks, and does not hold them
	state     state
	index     uint16           // in its class
	sealed    bool             // nothing is accessible, unless the block is live
	block     blockalloc.Block // the present one, or the last
	from      blockalloc.Block // its pages
	allocated stack
	freed     stack // none while the block is live
}

// perSlot is how many bytes are kept of a slot.
const perSlot = unsafe.Sizeof(slot{}) + unsafe.Sizeof(uint16(0))

type state uint8

const (
	idle state = iota // there was no block, or the next one is under way
	live
	dead // the block was freed, or is about to be
)

// holds reports whether addr is in the block.
func (at *slot) holds(addr uintptr) bool { return addr-at.block.Addr() < at.block.Size() }

// open makes the pages for a block accessible, and writes canaries where they have room beside it. The
// memory is zeroed.
func (at *slot) open(start unsafe.Pointer, l blockalloc.Layout, atEnd bool) (block, from blockalloc.Block, ok bool) {
	length, align := pages.RoundUp(l.Size, pages.Size), max(l.Align, pages.Size)
	p := unsafe.Add(start, align)
	if !at.sealed {
		at.sealed = pages.Seal(at.from.Pointer(), at.from.Size()) == nil
	}
	if !at.sealed || pages.Commit(p, length) != nil {
		return block, from, false
	}
	var front uintptr
	if atEnd && l.Align <= pages.Size {
		front = length - pages.RoundUp(l.Size, l.Align)
	}
	// They cannot fail: the layouts are good, and the start is a multiple of the alignment.
	from, _ = blockalloc.FromRaw(p, blockalloc.Layout{Size: length, Align: align})
	block, _ = blockalloc.NewBlock(unsafe.Add(p, front), l.Size, l)
	before, after := margins(block, from)
	canary.Write(before, -len(before))
	canary.Write(after, int(l.Size))
	return block, from, true
}

// margins returns the bytes of a block's pages before and after it.
func margins(block, from blockalloc.Block) (before, after []byte) {
	mem, front := from.Bytes(), block.Addr()-from.Addr()
	return mem[:front], mem[front+block.Size():]
}

// inspect returns a report if the canaries of a claimed block were overwritten, or nil.
func (at *slot) inspect(op string, now stack) *debug.Report {
	before, after := margins(at.block, at.from)
	kind := debug.Overrun
	damage := canary.Inspect(after, int(at.block.Size()))
	if damage == nil {
		kind = debug.Underrun
		damage = canary.Inspect(before, -len(before))
	}
	if damage == nil {
		return nil
	}
	report := newReport(kind, op, at, blockalloc.Block{}, now)
	report.Freed = nil // now
	report.Offset, report.Length, report.Found, report.Want = damage.Offset, damage.Length, damage.Found, damage.Want
	return report
}
