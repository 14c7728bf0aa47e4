//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package otlpfile

import (
	"errors"
	"os"
	"syscall"
)

// removeWhileOpen says that a file is removed before it is closed, so that it is locked until then.
const removeWhileOpen = true

// lock locks a file for as long as it is open. File systems that have no locks do without.
func lock(f *os.File) error {
	_, err := flock(f)
	return err
}

// claim opens a file that no Exporter writes. sure is false where there are no locks to tell.
func claim(name string) (f *os.File, sure bool, err error) {
	f, err = os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return nil, false, err
	}
	if sure, err = flock(f); err != nil {
		f.Close()
		return nil, false, err
	}
	return f, sure, nil
}

func flock(f *os.File) (locked bool, err error) {
	for {
		switch err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); {
		case err == nil:
			return true, nil
		case errors.Is(err, syscall.EWOULDBLOCK):
			return false, errInUse
		case !errors.Is(err, syscall.EINTR):
			return false, nil
		}
	}
}
