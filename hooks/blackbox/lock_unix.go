//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package blackbox

import (
	"errors"
	"os"
	"syscall"
)

// open opens a file, or makes it, and locks it for as long as it is open. File systems that have no locks do without.
func open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
		case errors.Is(err, syscall.EWOULDBLOCK):
			f.Close()
			return nil, ErrInUse
		case !errors.Is(err, syscall.EINTR):
			return f, nil
		}
	}
}
