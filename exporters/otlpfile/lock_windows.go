package otlpfile

import (
	"errors"
	"os"
	"syscall"
)

const removeWhileOpen = false // the system refuses that

// lock does nothing: while a file is open, claim fails.
func lock(*os.File) error { return nil }

// claim opens a file that nobody else has open.
func claim(name string) (f *os.File, sure bool, err error) {
	path, err := syscall.UTF16PtrFromString(name)
	if err != nil {
		return nil, false, err
	}
	const shared = 0
	h, err := syscall.CreateFile(path, syscall.GENERIC_READ|syscall.GENERIC_WRITE, shared, nil, syscall.OPEN_EXISTING, syscall.FILE_ATTRIBUTE_NORMAL, 0)
	const sharingViolation = syscall.Errno(32)
	if errors.Is(err, sharingViolation) {
		return nil, false, errInUse
	}
	if err != nil {
		return nil, false, err
	}
	return os.NewFile(uintptr(h), name), true, nil
}
