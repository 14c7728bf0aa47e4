//go:build unix

package pages

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"
)

// ErrOccupied is the error of Extend if another mapping begins where this one ends.
var ErrOccupied = errors.New("the address space behind the mapping is in use")

// extendByHint maps the pages from p+old to p+size, if nothing is mapped there. The kernel takes an
// address for a hint, and chooses another one if that is in use.
func extendByHint(p unsafe.Pointer, old, size uintptr) error {
	end := unsafe.Add(p, old)
	q, err := unix.MmapPtr(-1, 0, end, size-old, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		return err
	}
	if q != end {
		_ = Unmap(q, size-old)
		return ErrOccupied
	}
	return nil
}
