package typed

import (
	"errors"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// A Box is one value in a block of an allocator. Like the block, it is a value: all
// copies describe the same place, and freeing one frees it for all. Only the Box that
// Free or Take was called on notices.
//
// Make a Box with [NewBox] or [NewBoxFunc]. It is for one goroutine at a time; several
// may read at once. It adds nothing to the block, and costs the allocator's Allocate
// and Free. It is for values that are large, or that other memory refers to. For many
// small values use a [Vec].
type Box[T any] struct {
	mem   blockalloc.Allocator // nil after Free
	block blockalloc.Block     // empty if a T takes no memory
}

// NewBox returns a Box over mem with v in it. It panics if mem is nil or T holds Go
// pointers.
func NewBox[T any](mem blockalloc.Allocator, v T) (Box[T], error) {
	b, err := newBox[T]("NewBox", mem, false)
	if err == nil {
		*b.Pointer() = v
	}
	return b, err
}

// NewBoxFunc returns a Box over mem that fill has filled in place, so that a large
// value is never copied. The place is zeroed, and fill must not keep it. If fill fails
// or panics, the place is freed, and fill's error is returned. If the allocator refuses
// that free, the Box is returned with both errors, so that it can be freed later. It
// panics as NewBox does, and if fill is nil.
func NewBoxFunc[T any](mem blockalloc.Allocator, fill func(place *T) error) (box Box[T], err error) {
	if fill == nil {
		panic("blockalloc/typed: NewBoxFunc: fill is nil: pass a function, or use NewBox")
	}
	b, err := newBox[T]("NewBoxFunc", mem, true)
	if err != nil {
		return b, err
	}
	filled := false
	defer func() {
		if !filled {
			if freeErr := b.Free(); freeErr != nil {
				box, err = b, errors.Join(err, freeErr)
			}
		}
	}()
	if err := fill(b.Pointer()); err != nil {
		return Box[T]{}, err
	}
	filled = true
	return b, nil
}

func newBox[T any](function string, mem blockalloc.Allocator, zeroed bool) (Box[T], error) {
	needAllocator(function, mem)
	needPointerFree[T](function)
	var v T
	block, err := mem.Allocate(blockalloc.Layout{Size: unsafe.Sizeof(v), Align: unsafe.Alignof(v), Zeroed: zeroed})
	if err != nil {
		return Box[T]{}, err
	}
	return Box[T]{mem, block}, nil
}

// Pointer returns the address of the value, which is valid until the Box is freed.
func (b *Box[T]) Pointer() *T {
	if b.mem == nil {
		panicFreed("Box")
	}
	if b.block.IsZero() {
		return new(T) // takes no memory
	}
	return (*T)(b.block.Pointer())
}

// Get returns a copy of the value.
func (b *Box[T]) Get() T { return *b.Pointer() }

// Set replaces the value by v.
func (b *Box[T]) Set(v T) { *b.Pointer() = v }

// Take returns the value and frees the Box. If the allocator refuses the block, the
// value stays in.
func (b *Box[T]) Take() (T, error) {
	v := b.Get()
	if err := b.Free(); err != nil {
		var zero T
		return zero, err
	}
	return v, nil
}

// SetAllocator makes the Box free through mem from now on. It must take the blocks of
// the allocator before, as another view of the same one does.
func (b *Box[T]) SetAllocator(mem blockalloc.Allocator) {
	needAllocator("Box.SetAllocator", mem)
	if b.mem == nil {
		panicFreed("Box")
	}
	b.mem = mem
}

// Free gives the block back, and calls nothing on the value. After it only Free may be
// called, which does nothing.
func (b *Box[T]) Free() error {
	if !b.block.IsZero() {
		if err := b.mem.Free(b.block); err != nil {
			return err
		}
	}
	*b = Box[T]{}
	return nil
}
