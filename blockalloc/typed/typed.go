// Package typed has containers whose content lies in blocks of any
// [blockalloc.Allocator], outside the Go heap where the allocator is: a value in
// a place of its own ([Box]), a slice that grows ([Vec]), hash tables ([Map],
// [BytesMap]), an immutable string ([String]) and a buffer of bytes for readers
// and writers ([Buffer]).
//
//	v := typed.NewVec[uint64](mem)
//	defer v.Free()
//	err := v.Append(3, 1, 2)
//	slices.Sort(v.Slice())
//
// The garbage collector does not look into blocks. The constructors panic if a type
// holds Go pointers (strings and slices too): store an index, an offset or a [String].
//
// Whoever makes a container frees it: the garbage collector frees its block no
// more than it frees any other, and a container that is forgotten is a leak. Free
// gives the block back to the container's allocator; if that refuses, its error
// comes back and the container is what it was. A second Free does nothing, so
// that Free can be deferred and called early as well. Any other use of a
// container after Free panics and says so. What has left the container cannot be
// seen: a slice, a pointer or a view is valid until the content moves (each
// method says when) or is freed; whoever uses it later reads what lies there by
// then, or ends the program.
//
// Where memory is wanted and there is none, the allocator's error comes back
// untouched, and the container is what it was, as it is if the allocator panics. A block
// that the allocator refuses to take back is the container's until it does. A size that no address space holds
// is [blockalloc.ErrBadLayout]. An index out of range panics as a slice's does.
//
// A container is for one goroutine at a time, as a slice or a bytes.Buffer is,
// unless it says otherwise: several may read at once while nobody changes it.
// Its allocator may be shared as far as the allocator allows.
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

// panicFreed is the end of a container that is used although it has no allocator
// any more. It is not inlined, so that the methods that call it can be.
//
//go:noinline
func panicFreed(container string) {
	panic("blockalloc/typed: use of a " + container + " after Free, or of one that New" + container + " did not make")
}

// layoutOf returns the layout of n values of type T. A size that overflows is an
// error that wraps [blockalloc.ErrBadLayout]; what is merely larger than the
// address space the allocator refuses in the same way.
func layoutOf[T any](function string, n uint) (blockalloc.Layout, error) {
	var v T
	size, align := unsafe.Sizeof(v), unsafe.Alignof(v)
	if n > math.MaxInt || size > 0 && uintptr(n) > ^uintptr(0)/size {
		return blockalloc.Layout{}, fmt.Errorf("blockalloc/typed: %s: %w: %d elements of %d B are larger than the address space", function, blockalloc.ErrBadLayout, n, size)
	}
	return blockalloc.Layout{Size: size * uintptr(n), Align: align}, nil
}
