//go:build !darwin && !dragonfly && !freebsd && !linux && !netbsd && !openbsd && !windows

package otlpfile

import "os"

const removeWhileOpen = false

// lock does nothing where there are no locks.
func lock(*os.File) error { return nil }

// claim opens a file, which another Exporter may be writing.
func claim(name string) (f *os.File, sure bool, err error) {
	f, err = os.OpenFile(name, os.O_RDWR, 0)
	return f, false, err
}
