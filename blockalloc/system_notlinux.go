//go:build unix && !linux

package blockalloc

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// purge gives back the memory of accessible pages, which stay accessible. Their
// content is lost. MADV_FREE frees it when the machine is short of memory: these
// kernels have no advice that frees it at once, for their MADV_DONTNEED keeps the
// content.
func purge(p unsafe.Pointer, size uintptr) error {
	return unix.Madvise(unsafe.Slice((*byte)(p), size), unix.MADV_FREE)
}

// applyOption asks the kernel to treat mem as the option says. Huge pages are
// given or withheld by these kernels without being asked, and mappings have no
// names.
func applyOption(option int, mem []byte, _ string) error {
	switch option {
	case optionNoDump:
		return noDump(mem)
	case optionLock:
		return unix.Mlock(mem)
	}
	return errors.ErrUnsupported
}
