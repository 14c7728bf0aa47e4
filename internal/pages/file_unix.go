//go:build unix

package pages

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"
)

// MapFile maps the first size bytes of a file, whole pages, shared with all that map or read it: what is written there is in the
// file however the process ends.
func MapFile(f *os.File, size uintptr) (unsafe.Pointer, error) {
	p, err := unix.MmapPtr(int(f.Fd()), 0, nil, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, err
	}
	return p, nil
}

// DetachFile puts zeroed private memory in the place of a mapping of MapFile, for those who may still write there: the file no
// longer sees it.
func DetachFile(p unsafe.Pointer, size uintptr) error {
	_, err := unix.MmapPtr(-1, 0, p, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_FIXED)
	return err
}
