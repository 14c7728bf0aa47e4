//go:build unix && !linux

package pages

import (
	"errors"
	"unsafe"
)

// CanRemap reports whether a mapping can move to another address without being copied.
const CanRemap = false

// Extend makes a mapping of old bytes at p larger in place, by pages that are zeroed.
func Extend(p unsafe.Pointer, old, size uintptr) error { return extendByHint(p, old, size) }

// Remap is not to be had.
func Remap(unsafe.Pointer, uintptr, uintptr, uintptr) (unsafe.Pointer, error) {
	return nil, errors.ErrUnsupported
}
