package blockalloc

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/pages"
)

// A debugBlock is the record of a block.
type debugBlock struct {
	place  DebugPlace // what stays of it when its memory is gone
	block  Block      // what the caller has
	from   Block      // what it was cut from: the parent's block, or the accessible pages of a mapping
	region Block      // the mapping with its guards, empty if the block is the parent's
	canary int        // how much of from is checked before and after the block, at most

	serial    uint64 // grows with every block
	allocated DebugStack
	freed     DebugStack
	dead      bool // it was freed, or is about to be
	sealed    bool // it is inaccessible
	unmapped  bool // in the history: it had a mapping of its own
}

// The bytes that fresh and freed memory is full of are those of Microsoft's debugging
// heap, by which people know them.
const (
	freshPoison = 0xcd
	freedPoison = 0xdd
)

// canaryPattern is what stands around blocks: at each offset from the block's start
// the byte of its last four bits. None of them is likely to be written by accident.
var canaryPattern = [16]byte{0x9b, 0xb7, 0xe5, 0x8f, 0xd3, 0xa9, 0xf1, 0xc7, 0x95, 0xbb, 0xed, 0x87, 0xd9, 0xa3, 0xf5, 0xcb}

func canaryAt(offset int) byte { return canaryPattern[offset&(len(canaryPattern)-1)] }

func (r *debugBlock) guarded() bool { return !r.region.IsZero() }

// obtain gets memory for a block: a mapping of its own, or where that is not to be had, as
// when a process has all the mappings it may have, the parent's.
func (d *Debug) obtain(l Layout) (*debugBlock, error) {
	if r := d.obtainGuarded(l); r != nil {
		return r, nil
	}
	canary := uintptr(d.options.Canary)
	front := roundUp(canary, l.Align)
	whole := Layout{front + l.Size + canary, l.Align}
	if !whole.ok() {
		return nil, fmt.Errorf("%w: %d bytes with canaries are more than there are addresses", ErrOutOfMemory, whole.Size)
	}
	from, err := d.parent.Allocate(whole)
	if err != nil {
		return nil, err
	}
	return newDebugBlock(from, front, l, d.options.Canary), nil
}

// obtainGuarded returns nil if there is no mapping to be had.
func (d *Debug) obtainGuarded(l Layout) *debugBlock {
	if !d.options.Guard || !pages.Supported {
		return nil
	}
	most := int64(d.options.MaxGuarded)
	if own, all := d.guarded.Add(1), guardedByAll.Add(1); own <= most && all <= max(most, defaultMaxGuarded) {
		if r, err := mapGuarded(l); err == nil {
			if d.options.Canary > 0 {
				r.canary = int(pageSize)
			}
			return r
		}
	}
	d.unmapped()
	return nil
}

// unmapped counts a mapping less.
func (d *Debug) unmapped() {
	d.guarded.Add(-1)
	guardedByAll.Add(-1)
}

// guardedByAll is how many blocks have a mapping in all Debugs, which share those that a
// process can have.
var guardedByAll atomic.Int64

const defaultMaxGuarded = 16 << 10

// newDebugBlock cuts a block from memory so many bytes after its start.
func newDebugBlock(from Block, front uintptr, l Layout, canary int) *debugBlock {
	b := Block{unsafe.Add(from.ptr, front), l.Size, l.Align}
	return &debugBlock{place: placeOf(b), block: b, from: from, canary: canary}
}

// guardLayout says how a block lies in a mapping: length accessible bytes begin at a
// multiple of align, both whole pages, and the block front bytes later, so near
// their end as its alignment allows.
func guardLayout(l Layout) (length, align, front uintptr) {
	length, align = roundUp(l.Size, pageSize), max(l.Align, pageSize)
	if l.Align <= pageSize {
		front = length - roundUp(l.Size, l.Align)
	}
	return length, align, front
}

// giveBack ends a block's memory.
func (d *Debug) giveBack(r *debugBlock) error {
	r.show()
	if !r.guarded() {
		return d.parent.Free(r.from)
	}
	if err := pages.Unmap(r.region.ptr, r.region.size); err != nil {
		return fmt.Errorf("the mapping of %v: %w", r.place, err)
	}
	d.unmapped()
	return nil
}

// margins are the bytes before and after the block that are checked.
func (r *debugBlock) margins() (before, after []byte) {
	mem, front := r.from.Bytes(), r.block.Addr()-r.from.Addr()
	before, after = mem[:front], mem[front+r.block.size:]
	return before[len(before)-min(len(before), r.canary):], after[:min(len(after), r.canary)]
}

// canaries is the pattern over and over.
var canaries = [256]byte(bytes.Repeat(canaryPattern[:], 256/len(canaryPattern)))

// canariesFrom returns the first bytes of the pattern from an offset on, at most n.
func canariesFrom(offset, n int) []byte {
	at := canaries[offset&(len(canaryPattern)-1):]
	return at[:min(n, len(at))]
}

// mend writes the canaries.
func (r *debugBlock) mend() {
	r.show()
	defer r.hide()
	before, after := r.margins()
	for at := -len(before); at < 0; {
		at += copy(before[len(before)+at:], canariesFrom(at, -at))
	}
	for at := 0; at < len(after); {
		at += copy(after[at:], canariesFrom(int(r.block.size)+at, len(after)-at))
	}
}

// intact reports whether mem, so many bytes after a block's start, has its canaries.
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

// A damage is a piece of memory from the first byte that is wrong to the last.
type damage struct {
	offset      int // from the start of the block
	length      int
	found, want []byte // the first few
}

const maxDamageBytes = 8

// inspect returns what is wrong with the canaries, after the block or else before
// it, or nil.
func (r *debugBlock) inspect() *damage {
	r.show()
	defer r.hide()
	before, after := r.margins()
	if !intact(after, int(r.block.size)) {
		return compare(after, int(r.block.size), canaryAt)
	}
	if !intact(before, -len(before)) {
		return compare(before, -len(before), canaryAt)
	}
	return nil
}

// differs returns where mem is not full of v, or nil.
func differs(mem []byte, v byte) *damage {
	if n := len(mem); n == 0 || mem[0] == v && bytes.Equal(mem[1:], mem[:n-1]) {
		return nil
	}
	return compare(mem, 0, func(int) byte { return v })
}

// compare returns where mem, which lies so many bytes after the start of a block, is
// not what it has to be, or nil.
func compare(mem []byte, offset int, want func(offset int) byte) *damage {
	var hurt *damage
	for i, v := range mem {
		if v == want(offset+i) {
			continue
		}
		if hurt == nil {
			hurt = &damage{offset: offset + i}
			for j := i; j < min(i+maxDamageBytes, len(mem)); j++ {
				hurt.found = append(hurt.found, mem[j])
				hurt.want = append(hurt.want, want(offset+j))
			}
		}
		hurt.length = offset + i + 1 - hurt.offset
	}
	if hurt != nil && hurt.length < len(hurt.found) {
		hurt.found, hurt.want = hurt.found[:hurt.length], hurt.want[:hurt.length]
	}
	return hurt
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
