package blockalloc

import "unsafe"

// A pageSource is where a Pool gets chunks from. Sizes are whole pages. Tests replace
// it to make it fail.
type pageSource interface {
	// reserve returns address space at a multiple of chunkSize.
	reserve(size uintptr) (unsafe.Pointer, error)
	// commit makes part of it accessible, for the first time and zero.
	commit(p unsafe.Pointer, size uintptr) error
	// purge gives back the memory of an accessible part, which stays accessible.
	purge(p unsafe.Pointer, size uintptr) error
	// release gives back all that reserve returned.
	release(p unsafe.Pointer, size uintptr) error
}
