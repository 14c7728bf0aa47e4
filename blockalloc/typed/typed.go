// Package typed has containers whose content is in blocks of a [blockalloc.Allocator],
// and so most often outside the Go heap: a single value ([Box]), a slice that grows
// ([Vec]), hash tables ([Map], [BytesMap]), an immutable string ([String]) and a buffer
// of bytes for readers and writers ([Buffer]).
//
//	v := typed.NewVec[uint64](mem)
//	defer v.Free()
//	err := v.Append(3, 1, 2)
//	slices.Sort(v.Slice())
//
// The garbage collector does not look into blocks. The constructors panic if a type
// holds Go pointers (strings and slices too): store an index, an offset or a [String].
//
// Free each container that you make: the garbage collector does not free its block. Free
// gives the block back to the container's allocator. If that refuses, Free returns its
// error, and the container is unchanged. A second Free does nothing, so that Free can be
// deferred and called early as well. Any other use after Free panics. A function that has
// several containers can free them all, and return their errors:
//
//	defer func() { err = errors.Join(err, words.Free(), text.Free()) }()
//
// A slice, a pointer or a view into a container is valid until the content moves, as each
// method says, or is freed. Using it later reads other data, or ends the program.
//
// If there is no memory, the allocator's error is returned unchanged, and the container is
// unchanged, also if the allocator panics. A container keeps a block that the allocator
// refuses to take back, until it does. A size that no address space holds is
// [blockalloc.ErrBadLayout]. An index out of range panics as a slice's does.
//
// A container is for one goroutine at a time, as a slice is. Several may read at once while
// none changes it. Its allocator may be shared as far as the allocator allows.
package typed

import (
	"fmt"
	"math"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// needAllocator panics if a is nil, which a container would find out too late.
func needAllocator(function string, a blockalloc.Allocator) {
	if a == nil {
		panic("blockalloc/typed: " + function + "(nil): pass an allocator, such as blockalloc.Default()")
	}
}

// panicFreed panics for a container that has no allocator any more. It is not inlined,
// so that its callers can be.
//
//go:noinline
func panicFreed(container string) {
	panic("blockalloc/typed: use of a " + container + " after Free, or of one that New" + container + " did not make")
}

// layoutOf returns the layout of n values of type T. A size that overflows is an error
// that wraps [blockalloc.ErrBadLayout]; the allocator itself refuses sizes above the
// address space.
func layoutOf[T any](function string, n uint) (blockalloc.Layout, error) {
	var v T
	size, align := unsafe.Sizeof(v), unsafe.Alignof(v)
	if n > math.MaxInt || size > 0 && uintptr(n) > ^uintptr(0)/size {
		return blockalloc.Layout{}, fmt.Errorf("blockalloc/typed: %s: %w: %d elements of %d B are larger than the address space", function, blockalloc.ErrBadLayout, n, size)
	}
	return blockalloc.Layout{Size: size * uintptr(n), Align: align}, nil
}
