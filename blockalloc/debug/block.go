package debug

import (
	"errors"
	"fmt"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/canary"
	"github.com/alloctrace/alloctrace/internal/hidden"
	"github.com/alloctrace/alloctrace/internal/pages"
)

// A record is what is known of a block.
type record struct {
	mark   hidden.Mark      // it knows blocks, and does not hold them
	place  Place            // kept when the memory is gone
	block  blockalloc.Block // what the caller has
	from   blockalloc.Block // what it was cut from: the parent's block, or the accessible pages of a mapping
	region blockalloc.Block // the mapping with its guards, empty if the block is the parent's
	holds  *unsafe.Pointer  // to the address of the parent's block, which this Allocator does hold; nil if it is a mapping
	canary int              // how much of from is checked before and after the block, at most

	serial    uint64 // grows with every block
	allocated Stack
	freed     Stack
	dead      bool // it was freed, or is about to be
	sealed    bool // it is inaccessible
	unmapped  bool // in the history: it had a mapping of its own
}

// The bytes that fill fresh and freed memory are those of Microsoft's debugging heap, which
// people know.
const (
	freshPoison = 0xcd
	freedPoison = 0xdd
)

func (r *record) guarded() bool { return !r.region.IsZero() }

// obtain gets memory for a block: a mapping of its own, or else, for example if the
// process has all the mappings it may have, from the parent.
func (d *Allocator) obtain(l blockalloc.Layout) (*record, error) {
	if r := d.obtainGuarded(l); r != nil {
		return r, nil
	}
	canary := uintptr(d.options.Canary)
	front := pages.RoundUp(canary, l.Align)
	whole := blockalloc.Layout{Size: front + l.Size + canary, Align: l.Align, Zeroed: l.Zeroed}
	if whole.Check() != nil {
		return nil, fmt.Errorf("%w: %d bytes with canaries are more than there are addresses", blockalloc.ErrOutOfMemory, whole.Size)
	}
	from, err := d.parent.Allocate(whole)
	if err != nil {
		return nil, err
	}
	r, err := newRecord(from, front, l, d.options.Canary)
	if err != nil { // the parent has not aligned it
		return nil, errors.Join(err, d.parent.Free(from))
	}
	r.holds = new(unsafe.Pointer)
	*r.holds = from.Pointer()
	return r, nil
}

// newRecord returns the record of a block that begins front bytes after from does.
func newRecord(from blockalloc.Block, front uintptr, l blockalloc.Layout, canary int) (*record, error) {
	b, err := blockalloc.NewBlock(unsafe.Add(from.Pointer(), front), l.Size, l)
	return &record{mark: hidden.Knowing(), place: placeOf(b), block: b, from: from, canary: canary}, err
}

// giveBack releases a block's memory.
func (d *Allocator) giveBack(r *record) error {
	r.unpoison()
	if !r.guarded() {
		return d.parent.Free(r.from)
	}
	if err := pages.Unmap(r.region.Pointer(), r.region.Size()); err != nil {
		return fmt.Errorf("the mapping of %v: %w", r.place, err)
	}
	d.unmapped()
	return nil
}

// margins returns the bytes before and after the block that are checked.
func (r *record) margins() (before, after []byte) {
	mem, front := r.from.Bytes(), r.block.Addr()-r.from.Addr()
	before, after = mem[:front], mem[front+r.block.Size():]
	return before[len(before)-min(len(before), r.canary):], after[:min(len(after), r.canary)]
}

// writeCanaries writes what inspect expects.
func (r *record) writeCanaries() {
	r.unpoison()
	defer r.poison()
	before, after := r.margins()
	canary.Write(before, -len(before))
	canary.Write(after, int(r.block.Size()))
}

// inspect returns what is wrong with the canaries after the block, or else before it,
// or nil.
func (r *record) inspect() *canary.Mismatch {
	r.unpoison()
	defer r.poison()
	before, after := r.margins()
	if damage := canary.Inspect(after, int(r.block.Size())); damage != nil {
		return damage
	}
	return canary.Inspect(before, -len(before))
}

// fill sets every byte of mem.
func fill(mem []byte, v byte) {
	if v == 0 {
		clear(mem)
		return
	}
	if len(mem) > 0 {
		mem[0] = v
	}
	for n := 1; n < len(mem); n *= 2 {
		copy(mem[n:], mem[:n])
	}
}
