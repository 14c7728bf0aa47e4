package blockalloc

import (
	"unsafe"

	"golang.org/x/sys/windows"
)

// seal makes pages inaccessible and gives back their memory.
func seal(p unsafe.Pointer, size uintptr) error {
	return windows.VirtualFree(uintptr(p), size, windows.MEM_DECOMMIT)
}
