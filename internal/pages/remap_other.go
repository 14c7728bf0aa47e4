//go:build !unix

package pages

import (
	"errors"
	"unsafe"
)

// CanRemap reports whether a mapping can move to another address without being copied.
const CanRemap = false

// ErrOccupied is the error of Extend if another mapping begins where this one ends.
var ErrOccupied = errors.New("the address space behind the mapping is in use")

// Extend is not to be had: Windows releases whole regions only, each as it was reserved.
func Extend(unsafe.Pointer, uintptr, uintptr) error { return errors.ErrUnsupported }

// Remap is not to be had.
func Remap(unsafe.Pointer, uintptr, uintptr, uintptr) (unsafe.Pointer, error) {
	return nil, errors.ErrUnsupported
}
