package blockalloc

import (
	"fmt"
	"unsafe"
)

// A Block is a piece of memory that an [Allocator] handed out. It is a value: all
// copies describe the same memory, and freeing one frees it for all. The zero Block is
// empty.
type Block struct {
	ptr         unsafe.Pointer
	size, align uintptr
}

// Bytes returns the block's memory, of length Size. It must not be used after
// the block is freed or reallocated.
func (b Block) Bytes() []byte { return unsafe.Slice((*byte)(b.ptr), b.size) }

// Pointer returns the address of the block's first byte, nil if it is empty.
func (b Block) Pointer() unsafe.Pointer { return b.ptr }

// Addr returns the address of the block's first byte, 0 if it is empty. As a number, it
// keeps nothing alive.
func (b Block) Addr() uintptr { return uintptr(b.ptr) }

// Size returns the usable size of the block in bytes: what the allocator
// granted, which may be more than was asked for.
func (b Block) Size() uintptr { return b.size }

// Align returns the alignment that was asked for, in bytes. The address may be aligned
// more strictly.
func (b Block) Align() uintptr { return b.align }

// Layout returns the block's size and alignment.
func (b Block) Layout() Layout { return Layout{b.size, b.align} }

// IsZero reports whether the block is empty.
func (b Block) IsZero() bool { return b.ptr == nil }

// String returns, for example, "block 0xc000400000 of 4096 B aligned to 4096".
func (b Block) String() string {
	if b.IsZero() {
		return "empty block"
	}
	return fmt.Sprintf("block %#x of %v", b.Addr(), b.Layout())
}

// IntoRaw returns the block's pointer and layout, and makes *b the empty Block, so that
// freeing it does nothing. The memory stays allocated: [FromRaw] makes the Block again.
func (b *Block) IntoRaw() (unsafe.Pointer, Layout) {
	p, l := b.ptr, b.Layout()
	*b = Block{}
	return p, l
}

// FromRaw returns the Block that [Block.IntoRaw] took apart, or describes memory for an
// allocator of the caller's own. The error wraps [ErrBadLayout] if l is invalid or of
// size zero, or if p is nil or not aligned as l says.
func FromRaw(p unsafe.Pointer, l Layout) (Block, error) {
	if err := l.Check(); err != nil {
		return Block{}, fmt.Errorf("blockalloc: FromRaw(%#x, %v): %w", uintptr(p), l, err)
	}
	if p == nil || l.Size == 0 || uintptr(p)&(l.Align-1) != 0 {
		return Block{}, fmt.Errorf("blockalloc: FromRaw(%#x, %v): %w: pass the pointer and layout that IntoRaw returned", uintptr(p), l, ErrBadLayout)
	}
	return Block{p, l.Size, l.Align}, nil
}
