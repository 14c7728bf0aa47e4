package blockalloc

import (
	"fmt"
	"unsafe"
)

// A Block is a piece of memory that an [Allocator] handed out. It is a value: all
// copies describe the same memory, and freeing one frees it for all. The zero Block is
// empty.
type Block struct {
	ptr       unsafe.Pointer
	size      uintptr
	requested uintptr // 0 if it is not known
	align     uintptr // and zeroed
}

// zeroed is the bit of Block.align that says that all bytes were zero, and that those which Reallocate
// adds must be. No alignment is that large.
const zeroed = ^(^uintptr(0) >> 1)

// grant returns the block of size bytes at p that serves l.
func grant(p unsafe.Pointer, size uintptr, l Layout) Block {
	b := Block{p, size, l.Size, l.Align}
	if l.Zeroed {
		b.align |= zeroed
	}
	return b
}

// serve is grant of memory that may have been used.
func serve(p unsafe.Pointer, size uintptr, l Layout) Block {
	b := Block{p, size, l.Size, l.Align}
	if l.Zeroed {
		return b.cleared()
	}
	return b
}

// cleared makes all of b zero.
func (b Block) cleared() Block {
	clear(b.Bytes())
	b.align |= zeroed
	return b
}

// isZeroed reports whether the bytes that Reallocate adds must be zero.
func (b Block) isZeroed() bool { return b.align&zeroed != 0 }

// clearSlack is called when b was reallocated as live, the block that it is. If [FromRaw] made b of a size
// that was asked for, what lies behind that may have been used, and n has it. What n has beyond live is zero
// already.
func (n Block) clearSlack(b, live Block) {
	if end := min(live.size, n.size); n.isZeroed() && b.size < end {
		clear(n.Bytes()[b.size:end])
	}
}

// layout returns the request for a block of size bytes in the place of b.
func (b Block) layout(size uintptr) Layout {
	return Layout{Size: size, Align: b.Align(), Zeroed: b.isZeroed()}
}

// Is reports whether b is live, a block as its allocator handed it out: at the same address, and of the size
// that was granted, or made by [FromRaw] of a size from what was asked for to that. An
// allocator compares the blocks that it is to free by Is, and not by ==.
func (b Block) Is(live Block) bool {
	return b.ptr == live.ptr && (b.size == live.size || b.requested == 0 && live.requested <= b.size && b.size <= live.size)
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

// Requested returns the size in bytes that was asked for, at most Size. It is Size where that is
// not known: of a block that was found by its address.
func (b Block) Requested() uintptr {
	if b.requested == 0 {
		return b.size
	}
	return b.requested
}

// IsRaw reports whether b is a block that [FromRaw] made, of which it is not known what was granted, or is empty. See
// [Granted].
func (b Block) IsRaw() bool { return b.requested == 0 }

// Align returns the alignment that was asked for, in bytes. The address may be aligned
// more strictly.
func (b Block) Align() uintptr { return b.align &^ zeroed }

// Layout returns the block's size and alignment, and whether it is zeroed.
func (b Block) Layout() Layout { return b.layout(b.size) }

// IsZero reports whether the block is empty.
func (b Block) IsZero() bool { return b.ptr == nil }

// String returns, for example, "block 0xc000400000 of 4096 B aligned to 4096".
func (b Block) String() string {
	if b.IsZero() {
		return "empty block"
	}
	return fmt.Sprintf("block %#x of %v", b.Addr(), b.Layout())
}

// IntoRaw returns the block's pointer and the layout that was asked for, and makes *b the empty Block,
// so that freeing it does nothing. The memory stays allocated: [FromRaw] makes the Block again.
func (b *Block) IntoRaw() (unsafe.Pointer, Layout) {
	p, l := b.ptr, b.layout(b.Requested())
	*b = Block{}
	return p, l
}

// FromRaw returns the Block that [Block.IntoRaw] took apart. The size may be any from what was asked for
// to what was granted: the Block has that size, and its allocator takes it back. The error
// wraps [ErrBadLayout] if l is invalid or of size zero, or if p is nil or not aligned as l
// says.
func FromRaw(p unsafe.Pointer, l Layout) (Block, error) {
	if err := checkRaw(p, l); err != nil {
		return Block{}, fmt.Errorf("blockalloc: FromRaw(%#x, %v): %w", uintptr(p), l, err)
	}
	b := grant(p, l.Size, l)
	b.requested = 0
	return b, nil
}

// NewBlock is for an allocator of the caller's own: it returns the Block of granted bytes at p that
// serves l. The error wraps [ErrBadLayout] as that of [FromRaw] does, and if less is granted
// than was asked for.
func NewBlock(p unsafe.Pointer, granted uintptr, l Layout) (Block, error) {
	err := checkRaw(p, l)
	if err == nil && (granted < l.Size || granted >= maxSize) {
		err = fmt.Errorf("%w: grant the size that was asked for, or more", ErrBadLayout)
	}
	if err != nil {
		return Block{}, fmt.Errorf("blockalloc: NewBlock(%#x, %d, %v): %w", uintptr(p), granted, l, err)
	}
	return grant(p, granted, l), nil
}

func checkRaw(p unsafe.Pointer, l Layout) error {
	if err := l.Check(); err != nil {
		return err
	}
	if p == nil || l.Size == 0 || uintptr(p)&(l.Align-1) != 0 {
		return fmt.Errorf("%w: pass a pointer and the layout that it was allocated with", ErrBadLayout)
	}
	return nil
}
