package debug

import (
	"bytes"
	"errors"
	"fmt"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/pages"
)

// A record is what is known of a block.
type record struct {
	place  Place            // kept when the memory is gone
	block  blockalloc.Block // what the caller has
	from   blockalloc.Block // what it was cut from: the parent's block, or the accessible pages of a mapping
	region blockalloc.Block // the mapping with its guards, empty if the block is the parent's
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

// canaryPattern is what is written around blocks: byte i%16 at offset i from the
// block's start. None of its bytes is likely to be written by accident.
var canaryPattern = [16]byte{0x9b, 0xb7, 0xe5, 0x8f, 0xd3, 0xa9, 0xf1, 0xc7, 0x95, 0xbb, 0xed, 0x87, 0xd9, 0xa3, 0xf5, 0xcb}

func canaryAt(offset int) byte { return canaryPattern[offset&(len(canaryPattern)-1)] }

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
	return r, nil
}

// newRecord returns the record of a block that begins front bytes after from does.
func newRecord(from blockalloc.Block, front uintptr, l blockalloc.Layout, canary int) (*record, error) {
	b, err := blockalloc.NewBlock(unsafe.Add(from.Pointer(), front), l.Size, l)
	return &record{place: placeOf(b), block: b, from: from, canary: canary}, err
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

// canaries is the pattern repeated.
var canaries = [256]byte(bytes.Repeat(canaryPattern[:], 256/len(canaryPattern)))

// canariesFrom returns the bytes of the pattern from an offset on, at most n.
func canariesFrom(offset, n int) []byte {
	at := canaries[offset&(len(canaryPattern)-1):]
	return at[:min(n, len(at))]
}

// writeCanaries writes what inspect expects.
func (r *record) writeCanaries() {
	r.unpoison()
	defer r.poison()
	before, after := r.margins()
	for at := -len(before); at < 0; {
		at += copy(before[len(before)+at:], canariesFrom(at, -at))
	}
	for at := 0; at < len(after); {
		at += copy(after[at:], canariesFrom(int(r.block.Size())+at, len(after)-at))
	}
}

// intact reports whether mem, which is offset bytes after a block's start, has its
// canaries.
func intact(mem []byte, offset int) bool {
	for len(mem) > 0 {
		want := canariesFrom(offset, len(mem))
		if !bytes.Equal(mem[:len(want)], want) {
			return false
		}
		mem, offset = mem[len(want):], offset+len(want)
	}
	return true
}

// A mismatch is memory from the first wrong byte to the last.
type mismatch struct {
	offset      int // from the start of the block
	length      int
	found, want []byte // the first few
}

const maxDamageBytes = 8

// inspect returns what is wrong with the canaries after the block, or else before it,
// or nil.
func (r *record) inspect() *mismatch {
	r.unpoison()
	defer r.poison()
	before, after := r.margins()
	if !intact(after, int(r.block.Size())) {
		return compare(after, int(r.block.Size()), canaryAt)
	}
	if !intact(before, -len(before)) {
		return compare(before, -len(before), canaryAt)
	}
	return nil
}

// differs returns where mem has other bytes than v, or nil.
func differs(mem []byte, v byte) *mismatch {
	if n := len(mem); n == 0 || mem[0] == v && bytes.Equal(mem[1:], mem[:n-1]) {
		return nil
	}
	return compare(mem, 0, func(int) byte { return v })
}

// compare returns where mem, which is offset bytes after a block's start, is not as
// wanted, or nil.
func compare(mem []byte, offset int, want func(offset int) byte) *mismatch {
	var damage *mismatch
	for i, v := range mem {
		if v == want(offset+i) {
			continue
		}
		if damage == nil {
			damage = &mismatch{offset: offset + i}
			for j := i; j < min(i+maxDamageBytes, len(mem)); j++ {
				damage.found = append(damage.found, mem[j])
				damage.want = append(damage.want, want(offset+j))
			}
		}
		damage.length = offset + i + 1 - damage.offset
	}
	if damage != nil && damage.length < len(damage.found) {
		damage.found, damage.want = damage.found[:damage.length], damage.want[:damage.length]
	}
	return damage
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
