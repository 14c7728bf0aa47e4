package typed

import (
	"fmt"
	"iter"
	"slices"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// A Vec is a slice whose elements are in one block of an allocator. It takes no block
// before it has an element.
//
// A full Vec asks for twice its bytes, above 1 MiB for a quarter more, and at first for
// 64 bytes. If more is needed, it asks for that. [Vec.Reserve] asks for no more than
// what is needed. A Vec uses all that was granted. It grows by Reallocate, in place if
// the allocator can, and otherwise has the old and the new block at once. Growth copies
// each element about four times at most. Only [Vec.Shrink] and [Vec.Free] give memory
// back.
//
// Make a Vec with [NewVec]; it must not be copied. It is for one goroutine at a time;
// several may read at once.
type Vec[T any] struct {
	mem   blockalloc.Allocator // nil after Free
	block blockalloc.Block
	items []T // lies in block and ends where no other element fits
}

// NewVec returns an empty Vec over mem. It panics if mem is nil or T holds Go pointers.
func NewVec[T any](mem blockalloc.Allocator) *Vec[T] {
	needAllocator("NewVec", mem)
	needPointerFree[T]("NewVec")
	return newVec[T](mem)
}

func newVec[T any](mem blockalloc.Allocator) *Vec[T] {
	v := &Vec[T]{mem: mem}
	v.use(blockalloc.Block{}, 0)
	return v
}

// Len returns the number of elements.
func (v *Vec[T]) Len() int {
	v.check()
	return len(v.items)
}

// Cap returns how many elements the Vec has room for.
func (v *Vec[T]) Cap() int {
	v.check()
	return cap(v.items)
}

// At returns element i.
func (v *Vec[T]) At(i int) T {
	if uint(i) >= uint(len(v.items)) {
		v.outOfRange(i)
	}
	return v.items[i]
}

// Set replaces element i by x.
func (v *Vec[T]) Set(i int, x T) {
	if uint(i) >= uint(len(v.items)) {
		v.outOfRange(i)
	}
	v.items[i] = x
}

// outOfRange panics as a slice does, or says that the Vec was freed.
//
//go:noinline
func (v *Vec[T]) outOfRange(i int) {
	v.check()
	_ = v.items[i]
}

// Slice returns the elements in place, to read, write and sort. It is valid until the
// Vec grows, shrinks or is freed. Appending to it copies it to the Go heap.
func (v *Vec[T]) Slice() []T {
	v.check()
	return v.items[:len(v.items):len(v.items)]
}

// Append adds items at the end. They may be elements of v. If there is room, one item
// takes about twice as long as by the built-in append, and many items no longer.
func (v *Vec[T]) Append(items ...T) error {
	if len(items) > cap(v.items)-len(v.items) {
		var err error
		if items, err = v.makeRoom("Vec.Append", items); err != nil {
			return err
		}
	}
	if len(items) == 1 { // most often: a copy by hand is twice as fast
		v.items = append(v.items, items[0])
	} else {
		v.items = append(v.items, items...)
	}
	return nil
}

// Insert adds items before element i, or at the end if i is Len. They may be elements
// of v. It moves all elements behind them.
func (v *Vec[T]) Insert(i int, items ...T) error {
	v.check()
	_ = v.items[i:]
	if len(items) > cap(v.items)-len(v.items) {
		var err error
		if items, err = v.makeRoom("Vec.Insert", items); err != nil {
			return err
		}
	}
	v.items = slices.Insert(v.items, i, items...) // fits: it stays where it is
	return nil
}

// Delete removes the elements from i up to but not including j. It moves all elements
// behind them.
func (v *Vec[T]) Delete(i, j int) {
	v.check()
	v.items = slices.Delete(v.items, i, j)
}

// Pop removes the last element and returns it, or returns false if there is none.
func (v *Vec[T]) Pop() (x T, ok bool) {
	last := v.Len() - 1
	if last < 0 {
		return x, false
	}
	x = v.items[last]
	v.items = v.items[:last]
	return x, true
}

// Truncate removes all elements but the first n.
func (v *Vec[T]) Truncate(n int) {
	v.check()
	_ = v.items[:n:len(v.items)]
	v.items = v.items[:n]
}

// Clear removes all elements.
func (v *Vec[T]) Clear() { v.Truncate(0) }

// Resize sets the length to n: it keeps the first n elements, or adds zero ones. A Vec without a block asks for
// zeroed memory, for which an allocator need not touch fresh pages; what such a block grows by is zero too.
func (v *Vec[T]) Resize(n int) error {
	length, used := v.Len(), v.block.Size()
	if n <= length {
		v.Truncate(n)
		return nil
	}
	if n > cap(v.items) {
		if err := v.extend("Vec.Resize", n-length, true); err != nil {
			return err
		}
	}
	dirty := v.items[length:n]
	v.items = v.items[:n]
	if v.block.Layout().Zeroed { // what lies behind the bytes that there were is zero
		size := unsafe.Sizeof(v.items[0])
		dirty = dirty[:min(n, int((used+size-1)/size))-length]
	}
	clear(dirty)
	return nil
}

// Grow makes room for n more elements as Append does, so that calling it often is
// cheap.
func (v *Vec[T]) Grow(n int) error { return v.grow("Vec.Grow", n) }

// Reserve makes room for n elements in all, and asks for no more than that.
func (v *Vec[T]) Reserve(n int) error {
	if n <= v.Cap() {
		return nil
	}
	l, err := layoutOf[T]("Vec.Reserve", uint(n))
	if err != nil {
		return err
	}
	return v.reallocate(l)
}

// Shrink gives back the memory that the elements do not need, as far as the allocator
// can.
func (v *Vec[T]) Shrink() error {
	l, err := layoutOf[T]("Vec.Shrink", uint(v.Len()))
	if err != nil || v.block.Size() == l.Size {
		return err
	}
	return v.reallocate(l)
}

// Clone returns a Vec with the same elements over the same allocator, with no room to
// spare.
func (v *Vec[T]) Clone() (*Vec[T], error) {
	v.check()
	c := newVec[T](v.mem)
	if err := c.Reserve(v.Len()); err != nil {
		return nil, err
	}
	c.items = append(c.items, v.items...)
	return c, nil
}

// SetAllocator makes the Vec grow and free through mem from now on. It must take
// the blocks of the allocator before, as another view of the same one does.
func (v *Vec[T]) SetAllocator(mem blockalloc.Allocator) {
	needAllocator("Vec.SetAllocator", mem)
	v.check()
	v.mem = mem
}

// Free gives the block back. After it only Free may be called, which does nothing.
func (v *Vec[T]) Free() error {
	if !v.block.IsZero() {
		if err := v.mem.Free(v.block); err != nil {
			return err
		}
	}
	*v = Vec[T]{}
	return nil
}

// All yields the indices and elements in order. The Vec may change meanwhile: each step
// looks at it anew.
func (v *Vec[T]) All() iter.Seq2[int, T] {
	return func(yield func(int, T) bool) {
		for i := 0; i < v.Len(); i++ {
			if !yield(i, v.items[i]) {
				return
			}
		}
	}
}

// Values yields the elements in order. The Vec may change meanwhile, as in [Vec.All].
func (v *Vec[T]) Values() iter.Seq[T] {
	return func(yield func(T) bool) {
		for i := 0; i < v.Len(); i++ {
			if !yield(v.items[i]) {
				return
			}
		}
	}
}

// Backward yields the indices and elements from the last to the first. The Vec may
// change meanwhile: each step looks for the element before the one yielded last.
func (v *Vec[T]) Backward() iter.Seq2[int, T] {
	return func(yield func(int, T) bool) {
		for i := v.Len() - 1; i >= 0; i = min(i, v.Len()) - 1 {
			if !yield(i, v.items[i]) {
				return
			}
		}
	}
}

func (v *Vec[T]) check() {
	if v.mem == nil {
		panicFreed("Vec")
	}
}

// grow makes room for n more elements.
func (v *Vec[T]) grow(function string, n int) error {
	v.check()
	if n < 0 {
		return fmt.Errorf("blockalloc/typed: %s: %w: room for %d elements: ask for none or more", function, blockalloc.ErrBadLayout, n)
	}
	if n <= cap(v.items)-len(v.items) {
		return nil
	}
	return v.extend(function, n, false)
}

// extend enlarges the block so that n more elements fit, and at least as much as a full
// Vec grows. A first block is zeroed if that is asked for.
func (v *Vec[T]) extend(function string, n int, zeroed bool) error {
	l, err := layoutOf[T](function, uint(len(v.items))+uint(n))
	if err != nil {
		return err
	}
	size := v.block.Size()
	switch {
	case size < 32:
		size = 64
	case size < 1<<20:
		size *= 2
	default:
		size += size / 4
	}
	l.Size = max(l.Size, size)
	l.Zeroed = zeroed
	return v.reallocate(l)
}

// makeRoom makes room for items and returns where they are then: they may be in the
// block that moves.
func (v *Vec[T]) makeRoom(function string, items []T) ([]T, error) {
	offset, inside := v.offset(items)
	if err := v.grow(function, len(items)); err != nil || !inside {
		return items, err
	}
	return unsafe.Slice((*T)(unsafe.Add(v.block.Pointer(), offset)), len(items)), nil
}

// offset reports whether items are in the block, and where.
func (v *Vec[T]) offset(items []T) (bytes uintptr, inside bool) {
	bytes = uintptr(unsafe.Pointer(unsafe.SliceData(items))) - v.block.Addr()
	return bytes, bytes < v.block.Size()
}

// reallocate gives the block the layout l, which has room for the elements.
func (v *Vec[T]) reallocate(l blockalloc.Layout) error {
	var b blockalloc.Block
	var err error
	if v.block.IsZero() {
		b, err = v.mem.Allocate(l)
	} else {
		b, err = v.mem.Reallocate(v.block, l.Size)
	}
	if err != nil {
		return err
	}
	v.use(b, len(v.items))
	return nil
}

// use makes b, which holds n elements, the block.
func (v *Vec[T]) use(b blockalloc.Block, n int) {
	var x T
	v.block = b
	switch size := unsafe.Sizeof(x); {
	case size == 0:
		const most = int(^uint(0) >> 1)
		v.items = unsafe.Slice(new(T), most)[:n] // takes no memory, however many
	case b.IsZero():
		v.items = nil
	default:
		v.items = unsafe.Slice((*T)(b.Pointer()), b.Size()/size)[:n]
	}
}
