package blockalloc

import (
	"errors"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// applyOption asks the kernel to treat mem as the option says.
func applyOption(option int, mem []byte, name string) error {
	switch option {
	case optionName:
		s, err := unix.BytePtrFromString(name)
		if err != nil {
			return err
		}
		err = unix.Prctl(unix.PR_SET_VMA, unix.PR_SET_VMA_ANON_NAME,
			uintptr(unsafe.Pointer(unsafe.SliceData(mem))), uintptr(len(mem)), uintptr(unsafe.Pointer(s)))
		runtime.KeepAlive(s)
		return err
	case optionNoDump:
		return unix.Madvise(mem, unix.MADV_DONTDUMP)
	case optionHugePages:
		return unix.Madvise(mem, unix.MADV_HUGEPAGE)
	case optionPopulate:
		err := unix.Madvise(mem, unix.MADV_POPULATE_WRITE)
		if err == unix.EINVAL || err == unix.ENOSYS { // kernels before 5.14
			return errors.ErrUnsupported
		}
		return err
	case optionLock:
		return unix.Mlock(mem)
	}
	return errors.ErrUnsupported
}
