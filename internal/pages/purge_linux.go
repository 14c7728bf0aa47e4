package pages

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// PurgeZeroes reports whether pages are zero after Purge.
const PurgeZeroes = true

// Purge gives back the memory of accessible pages, which stay accessible and are zero then.
// MADV_DONTNEED frees it at once, and the resident size falls.
func Purge(p unsafe.Pointer, size uintptr) error {
	mem := unsafe.Slice((*byte)(p), size)
	err := unix.Madvise(mem, unix.MADV_DONTNEED)
	if err == unix.EINVAL { // it is locked in memory
		err = unix.Madvise(mem, unix.MADV_DONTNEED_LOCKED)
	}
	if err == unix.EINVAL { // by a kernel before 5.18
		if err = unix.Munlock(mem); err == nil {
			err = unix.Madvise(mem, unix.MADV_DONTNEED)
		}
	}
	return err
}
