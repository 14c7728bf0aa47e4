package blockalloc

import (
	"fmt"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/pages"
)

// mapGuarded maps a block between inaccessible pages. Its memory is zeroed.
func mapGuarded(l Layout) (*debugBlock, error) {
	length, align, front := guardLayout(l)
	size := align + length + pageSize
	if size >= maxSize {
		return nil, fmt.Errorf("%w: %d bytes with guard pages are more than there are addresses", ErrOutOfMemory, size)
	}
	base, err := pages.Reserve(size, align)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOutOfMemory, err)
	}
	region := Block{base, size, align}
	from := Block{unsafe.Add(base, align), length, align}
	if head := align - pageSize; pages.CanShrink && head > 0 && pages.Unmap(base, head) == nil {
		region = Block{unsafe.Add(base, head), size - head, pageSize}
	}
	if err := pages.Commit(from.ptr, length); err != nil {
		_ = pages.Unmap(region.ptr, region.size)
		return nil, fmt.Errorf("%w: %w", ErrOutOfMemory, err)
	}
	r := newDebugBlock(from, front, l, 0)
	r.region = region
	return r, nil
}
