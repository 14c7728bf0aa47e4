package debug

import (
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/pages"
)

// obtainGuarded returns a block with a mapping of its own, or nil if there is none to
// be had.
func (d *Allocator) obtainGuarded(l blockalloc.Layout) *record {
	if !d.options.Guard {
		return nil
	}
	most := int64(d.options.MaxGuarded)
	if own, all := d.guarded.Add(1), guardedByAll.Add(1); own <= most && all <= max(most, defaultMaxGuarded) {
		if r := mapGuarded(l); r != nil {
			if d.options.Canary > 0 {
				r.canary = int(pages.Size)
			}
			return r
		}
	}
	d.unmapped()
	return nil
}

// unmapped counts that a mapping was given back.
func (d *Allocator) unmapped() {
	d.guarded.Add(-1)
	guardedByAll.Add(-1)
}

// guardedByAll is how many blocks have a mapping in all Allocators: they share the
// process's limit.
var guardedByAll atomic.Int64

const defaultMaxGuarded = 16 << 10

// mapGuarded maps a block between inaccessible pages, or returns nil. Its memory is zeroed.
func mapGuarded(l blockalloc.Layout) *record {
	length, align, front := guardLayout(l)
	whole := blockalloc.Layout{Size: align + length + pages.Size, Align: align}
	if whole.Check() != nil {
		return nil
	}
	base, err := pages.Reserve(whole.Size, align)
	if err != nil {
		return nil
	}
	// FromRaw cannot fail: the layouts are good, and Reserve has aligned base.
	region, _ := blockalloc.FromRaw(base, whole)
	from, _ := blockalloc.FromRaw(unsafe.Add(base, align), blockalloc.Layout{Size: length, Align: align})
	if head := align - pages.Size; pages.CanShrink && head > 0 && pages.Unmap(base, head) == nil {
		region, _ = blockalloc.FromRaw(unsafe.Add(base, head), blockalloc.Layout{Size: whole.Size - head, Align: pages.Size})
	}
	if pages.Commit(from.Pointer(), length) != nil {
		_ = pages.Unmap(region.Pointer(), region.Size())
		return nil
	}
	r, _ := newRecord(from, front, l, 0)
	r.region = region
	return r
}

// guardLayout returns how a block is placed in a mapping: length accessible bytes begin
// at a multiple of align, both whole pages. The block begins front bytes later, as near
// their end as its alignment allows.
func guardLayout(l blockalloc.Layout) (length, align, front uintptr) {
	length, align = pages.RoundUp(l.Size, pages.Size), max(l.Align, pages.Size)
	if l.Align <= pages.Size {
		front = length - pages.RoundUp(l.Size, l.Align)
	}
	return length, align, front
}
