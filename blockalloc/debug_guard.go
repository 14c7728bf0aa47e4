//go:build unix || windows

package blockalloc

import (
	"fmt"
	"unsafe"
)

// hasGuards says that blocks can have mappings of their own.
const hasGuards = true

// mapGuarded maps a block between inaccessible pages. Its memory is zeroed.
func mapGuarded(l Layout) (*debugBlock, error) {
	pages, align, front := guardLayout(l)
	size := align + pages + pageSize
	if size >= maxSize {
		return nil, fmt.Errorf("%w: %d bytes with guard pages are more than there are addresses", ErrOutOfMemory, size)
	}
	base, err := reserveAligned(size, align)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOutOfMemory, err)
	}
	region := Block{base, size, align}
	from := Block{unsafe.Add(base, align), pages, align}
	if head := align - pageSize; canShrink && head > 0 && unmap(base, head) == nil {
		region = Block{unsafe.Add(base, head), size - head, pageSize}
	}
	if err := commit(from.ptr, pages); err != nil {
		_ = unmap(region.ptr, region.size)
		return nil, fmt.Errorf("%w: %w", ErrOutOfMemory, err)
	}
	r := newDebugBlock(from, front, l, 0)
	r.region = region
	return r, nil
}
