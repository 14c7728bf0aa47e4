package pages

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

func init() { kernelExtends = mremapExtends }

// mremapExtends asks the kernel whether it extends a mapping into pages that were just given back. qemu does not, where it keeps the
// whole address space of a 32-bit program to itself.
func mremapExtends() bool {
	p, err := unix.MmapPtr(-1, 0, nil, 2*Size, unix.PROT_READ, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil || unix.MunmapPtr(unsafe.Add(p, Size), Size) != nil {
		return true
	}
	_, err = unix.MremapPtr(p, Size, nil, 2*Size, 0)
	return err == nil
}
