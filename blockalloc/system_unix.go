//go:build unix

package blockalloc

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// canShrink: part of a mapping can be unmapped.
const canShrink = true

// mapAligned maps size bytes at a multiple of align, both whole pages. It first
// asks for just size bytes: the kernel puts mappings side by side, so that after
// one aligned block its neighbour is aligned too. Failing that, it reserves
// enough address space to hold an aligned block wherever it falls, without
// access, so that no overcommit check counts it, and trims.
func mapAligned(size, align uintptr) (unsafe.Pointer, error) {
	p, err := anonymous(size, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil || uintptr(p)&(align-1) == 0 {
		return p, err
	}
	if err := unmap(p, size); err != nil {
		return nil, err
	}
	aligned, err := reserveAligned(size, align)
	if err != nil {
		return nil, err
	}
	if err := commit(aligned, size); err != nil {
		_ = unmap(aligned, size)
		return nil, err
	}
	return aligned, nil
}

// reserveAligned reserves size bytes of address space at a multiple of align, both
// whole pages, without access.
func reserveAligned(size, align uintptr) (unsafe.Pointer, error) {
	span := size + align - pageSize
	p, err := anonymous(span, unix.PROT_NONE)
	if err != nil {
		return nil, err
	}
	head := roundUp(uintptr(p), align) - uintptr(p)
	tail := span - head - size
	aligned := unsafe.Add(p, head)
	if head > 0 {
		if err := unmap(p, head); err != nil {
			_ = unmap(p, span) // where there is no room to split a mapping, a whole one goes, unless it was merged
			return nil, err
		}
	}
	if tail > 0 {
		if err := unmap(unsafe.Add(aligned, size), tail); err != nil {
			_ = unmap(aligned, size+tail)
			return nil, err
		}
	}
	return aligned, nil
}

// commit makes reserved pages accessible. They are zeroed.
func commit(p unsafe.Pointer, size uintptr) error {
	return unix.Mprotect(unsafe.Slice((*byte)(p), size), unix.PROT_READ|unix.PROT_WRITE)
}

// anonymous maps fresh private memory. On Linux a failure does not return nil:
// only err tells.
func anonymous(size uintptr, access int) (unsafe.Pointer, error) {
	p, err := unix.MmapPtr(-1, 0, nil, size, access, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	return p, nil
}

func unmap(p unsafe.Pointer, size uintptr) error { return unix.MunmapPtr(p, size) }
