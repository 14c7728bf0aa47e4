//go:build unix

package blockalloc

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// seal makes pages inaccessible and gives back their memory.
func seal(p unsafe.Pointer, size uintptr) error {
	_, err := unix.MmapPtr(-1, 0, p, size, unix.PROT_NONE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_FIXED)
	return err
}
