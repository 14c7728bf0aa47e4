package blockalloc

import (
	"errors"
	"fmt"
	"runtime"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/pages"
)

// Reserved is an [Allocator] whose blocks never move. It reserves Max bytes of address space for
// each block, and makes as much of that accessible as the block is large. Reallocate and Resize
// change how much that is. So it serves memory that others have pointers into: the linear
// memory of a WebAssembly module, an arena, a table that grows.
//
//	mem := &blockalloc.Reserved{Max: 4 << 30}
//	b, err := mem.Allocate(blockalloc.Layout{Size: 64 << 10, Align: 64 << 10})
//	b, err = mem.Reallocate(b, 128<<10) // at the same address
//
// Only what is accessible takes memory, and is the size of a block for what counts and limits
// it: a Proxy, a [Limit]. What a block gives back goes to the operating system at
// once, and is zero if the block grows again. Fresh blocks are zeroed.
// Sizes are rounded up to whole pages. More than Max is [ErrOutOfMemory].
//
// An allocation costs two to six system calls, some microseconds, and two mappings of the
// process (Linux allows 65,530, vm.max_map_count). A reallocation costs one system call if it
// changes the number of pages, and nothing of what the block holds. With
// 64-bit addresses there is room for some 32,000 blocks of 4 GiB; with 32-bit addresses for
// 2 to 3 GiB in all. On platforms without virtual memory (js/wasm, wasip1, plan9)
// every request is refused with [errors.ErrUnsupported].
//
// A Reserved must not be copied. Several goroutines may use it at once.
type Reserved struct {
	// Max is how large a block can become, in bytes. Do not change it once the Reserved is in use.
	Max uintptr

	// System's options apply to accessible memory. It serves nothing else. Do not change them once
	// the Reserved is in use.
	System System

	live registry[struct{}]
}

var (
	_ Allocator = (*Reserved)(nil)
	_ Owner     = (*Reserved)(nil)
	_ Finder    = (*Reserved)(nil)
	_ Resizer   = (*Reserved)(nil)
	_ Mapper    = (*Reserved)(nil)
)

// Allocate reserves Max bytes and returns a zeroed block of the first l.Size of them, rounded up to
// whole pages.
func (r *Reserved) Allocate(l Layout) (Block, error) {
	if err := l.Check(); err != nil {
		return Block{}, allocateError("Reserved", l, err)
	}
	if l.Size == 0 {
		return Block{}, nil
	}
	b, err := r.allocate(l)
	if err != nil {
		return Block{}, allocateError("Reserved", l, err)
	}
	return b, nil
}

func (r *Reserved) allocate(l Layout) (Block, error) {
	if !pages.Supported {
		return Block{}, fmt.Errorf("%w on %s/%s: use Heap or Default, and as much as is needed from the start", errors.ErrUnsupported, runtime.GOOS, runtime.GOARCH)
	}
	if l.Size > r.Max || r.Max >= maxSize {
		return Block{}, r.errMax()
	}
	p, err := pages.Reserve(r.span(), max(l.Align, pageSize))
	if err != nil {
		return Block{}, fmt.Errorf("%w: %w: %d B of address space cannot be reserved", ErrOutOfMemory, err, r.span())
	}
	b := grant(p, roundUp(l.Size, pageSize), l)
	if err := pages.Commit(b.ptr, b.size); err != nil {
		_ = pages.Unmap(p, r.span())
		return Block{}, fmt.Errorf("%w: %w", ErrOutOfMemory, err)
	}
	r.System.apply(b)
	r.live.add(b, struct{}{})
	return b, nil
}

// span is what a block takes of the address space.
func (r *Reserved) span() uintptr { return roundUp(r.Max, pageSize) }

func (r *Reserved) errMax() error {
	if r.Max >= maxSize {
		return fmt.Errorf("%w: Reserved.Max is %d B: set it to less than %d", ErrOutOfMemory, r.Max, uintptr(maxSize))
	}
	return fmt.Errorf("%w: Reserved.Max is %d B: ask for less or set it higher", ErrOutOfMemory, r.Max)
}

// Reallocate does what Resize does, and frees b if size is zero.
func (r *Reserved) Reallocate(b Block, size uintptr) (Block, error) {
	if b.IsZero() {
		return b, reallocateError("Reserved", b, size, errEmptyReallocate)
	}
	var n Block
	var err error
	if size == 0 {
		err = r.free(b)
	} else {
		n, err = r.resize(b, size)
	}
	if err != nil {
		return b, reallocateError("Reserved", b, size, err)
	}
	return n, nil
}

// Resize makes the first size bytes of what is reserved for b accessible, and gives back the memory of
// the others, by whole pages.
func (r *Reserved) Resize(b Block, size uintptr) (Block, error) {
	_, err := checkResize(b, size)
	if err == nil {
		var n Block
		if n, err = r.resize(b, size); err == nil {
			return n, nil
		}
	}
	return b, resizeError("Reserved", b, size, err)
}

func (r *Reserved) resize(b Block, size uintptr) (Block, error) {
	l := b.layout(size)
	if err := l.Check(); err != nil {
		return b, err
	}
	old, err := r.live.take(b) // meanwhile nobody else can free it
	if err != nil {
		return b, err
	}
	live := old
	defer func() { r.live.add(live, struct{}{}) }()
	if size > r.Max {
		return b, r.errMax()
	}
	old.align |= b.align & zeroed
	l.Zeroed = old.isZeroed()
	n := grant(old.ptr, roundUp(size, pageSize), l)
	switch {
	case n.size > old.size:
		added := Block{ptr: unsafe.Add(n.ptr, old.size), size: n.size - old.size}
		if err := pages.Commit(added.ptr, added.size); err != nil {
			return b, fmt.Errorf("%w: %w", ErrOutOfMemory, err)
		}
		r.System.apply(added)
	case n.size < old.size:
		if err := pages.Seal(unsafe.Add(n.ptr, n.size), old.size-n.size); err != nil {
			return b, err
		}
	}
	n.clearSlack(b, old)
	live = n
	return n, nil
}

// Free gives back b's memory and its address space.
func (r *Reserved) Free(b Block) error {
	if b.IsZero() {
		return nil
	}
	if err := r.free(b); err != nil {
		return freeError("Reserved", b, err)
	}
	return nil
}

func (r *Reserved) free(b Block) error {
	live, err := r.live.take(b)
	if err != nil {
		return err
	}
	if err := pages.Unmap(b.ptr, r.span()); err != nil {
		r.live.add(live, struct{}{})
		return err
	}
	return nil
}

// Owns reports whether b is a live block of this Reserved.
func (r *Reserved) Owns(b Block) bool { return !b.IsZero() && r.live.owns(b) }

// Find returns the live block of this Reserved that holds the byte at p, as [System.Find] does. What is reserved
// and not accessible belongs to no block.
func (r *Reserved) Find(p unsafe.Pointer) (Block, bool) { return r.live.find(p) }

// Mappings returns the address space that is reserved for the live blocks.
func (r *Reserved) Mappings() []Mapping {
	list := r.live.mappings()
	for i := range list {
		list[i].Size = r.span()
	}
	return list
}

// String returns, for example, "Reserved 4.0 GiB".
func (r *Reserved) String() string { return "Reserved " + sizeText(int64(r.Max)) }
