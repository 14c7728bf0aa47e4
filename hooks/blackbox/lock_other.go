//go:build !darwin && !dragonfly && !freebsd && !linux && !netbsd && !openbsd && !windows

package blackbox

import "os"

// open opens a file, or makes it. Nobody knows here whether another process has it.
func open(path string) (*os.File, error) { return os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600) }
