//go:build unix && !linux

package pages

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// PurgeZeroes reports whether pages are zero after Purge. Until the kernel needs the memory, they
// keep their content.
const PurgeZeroes = false

// Purge gives back the memory of accessible pages, which stay accessible. Their
// content is lost. MADV_FREE frees it when the machine is short of memory: these
// kernels have no advice that frees it at once, for their MADV_DONTNEED keeps the
// content.
func Purge(p unsafe.Pointer, size uintptr) error {
	return unix.Madvise(unsafe.Slice((*byte)(p), size), unix.MADV_FREE)
}
