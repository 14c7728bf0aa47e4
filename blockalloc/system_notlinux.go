//go:build unix && !linux

package blockalloc

import (
	"errors"
	"runtime"

	"golang.org/x/sys/unix"
)

// applyOption asks the kernel to treat mem as the option says. Huge pages are
// given or withheld by these kernels without being asked, and mappings have no
// names.
func applyOption(option int, mem []byte, _ string) error {
	switch option {
	case optionNoDump:
		if runtime.GOOS == "freebsd" {
			return unix.Madvise(mem, madvNoCore)
		}
	case optionLock:
		return unix.Mlock(mem)
	}
	return errors.ErrUnsupported
}

// madvNoCore is FreeBSD's MADV_NOCORE, which package unix has on FreeBSD alone.
const madvNoCore = 8
