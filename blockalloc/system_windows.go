package blockalloc

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/windows"
)

// applyOption asks the system to treat mem as the option says. Large pages need
// a privilege and a mapping made for them, and mappings have no names.
func applyOption(option int, mem []byte, _ string) error {
	if option == optionLock {
		return windows.VirtualLock(uintptr(unsafe.Pointer(unsafe.SliceData(mem))), uintptr(len(mem)))
	}
	return errors.ErrUnsupported
}
