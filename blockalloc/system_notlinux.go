//go:build unix && !linux

package blockalloc

import (
	"errors"

	"golang.org/x/sys/unix"
)

// applyOption asks the kernel to treat mem as the option says. Huge pages are
// given or withheld by these kernels without being asked, and mappings have no
// names.
func applyOption(option int, mem []byte, _ string) error {
	switch option {
	case optionNoDump:
		return noDump(mem)
	case optionLock:
		return unix.Mlock(mem)
	}
	return errors.ErrUnsupported
}
