//go:build unix

package pages

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Supported reports whether the platform has pages.
const Supported = true

// CanShrink reports whether part of a mapping can be unmapped.
const CanShrink = true

// Map maps size bytes at a multiple of align, both whole pages. It first asks for just
// size bytes: the kernel puts mappings side by side, so that the neighbour of an
// aligned block is most often aligned. If not, it reserves address space that holds an
// aligned block wherever it falls, and trims. That space has no access, so that no
// overcommit check counts it.
func Map(size, align uintptr) (unsafe.Pointer, error) {
	p, err := anonymous(size, unix.PROT_READ|unix.PROT_WRITE)
	if err != nil || uintptr(p)&(align-1) == 0 {
		return p, err
	}
	if err := Unmap(p, size); err != nil {
		return nil, err
	}
	aligned, err := Reserve(size, align)
	if err != nil {
		return nil, err
	}
	if err := Commit(aligned, size); err != nil {
		_ = Unmap(aligned, size)
		return nil, err
	}
	return aligned, nil
}

// Reserve reserves size bytes of address space at a multiple of align, both
// whole pages, without access.
func Reserve(size, align uintptr) (unsafe.Pointer, error) {
	span := size + align - Size
	p, err := anonymous(span, unix.PROT_NONE)
	if err != nil {
		return nil, err
	}
	head := RoundUp(uintptr(p), align) - uintptr(p)
	tail := span - head - size
	aligned := unsafe.Add(p, head)
	if head > 0 {
		if err := Unmap(p, head); err != nil {
			_ = Unmap(p, span) // without room to split a mapping, the whole one can go, unless it was merged
			return nil, err
		}
	}
	if tail > 0 {
		if err := Unmap(unsafe.Add(aligned, size), tail); err != nil {
			_ = Unmap(aligned, size+tail)
			return nil, err
		}
	}
	return aligned, nil
}

// Commit makes reserved pages accessible. They are zeroed.
func Commit(p unsafe.Pointer, size uintptr) error {
	return unix.Mprotect(unsafe.Slice((*byte)(p), size), unix.PROT_READ|unix.PROT_WRITE)
}

// anonymous maps fresh private memory. On Linux the pointer is not nil after a failure:
// only err says so.
func anonymous(size uintptr, access int) (unsafe.Pointer, error) {
	p, err := unix.MmapPtr(-1, 0, nil, size, access, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// Unmap gives back a mapping, or pages of one.
func Unmap(p unsafe.Pointer, size uintptr) error { return unix.MunmapPtr(p, size) }

// Seal makes pages inaccessible and gives back their memory.
func Seal(p unsafe.Pointer, size uintptr) error {
	_, err := unix.MmapPtr(-1, 0, p, size, unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_FIXED)
	return err
}
