package main

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// openDirect opens a file with O_DIRECT, for reads and writes of pages that are aligned to their size, in bytes. Since
// Linux 6.1 the kernel says what a file needs; before, and on some file systems, only a try does.
func openDirect(name string, pageSize int) (*os.File, error) {
	f, err := os.OpenFile(name, os.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return nil, err
	}
	var stat unix.Statx_t
	err = unix.Statx(unix.AT_FDCWD, name, 0, unix.STATX_DIOALIGN, &stat)
	switch {
	case err != nil || stat.Mask&unix.STATX_DIOALIGN == 0: // the kernel does not say
		return f, nil
	case stat.Dio_mem_align == 0:
		err = errors.ErrUnsupported
	case pageSize%int(stat.Dio_mem_align) != 0 || pageSize%int(stat.Dio_offset_align) != 0:
		err = fmt.Errorf("memory must be aligned to %d bytes and offsets to %d, pages have %d", stat.Dio_mem_align, stat.Dio_offset_align, pageSize)
	default:
		return f, nil
	}
	f.Close()
	return nil, &os.PathError{Op: "open with O_DIRECT", Path: name, Err: err}
}
