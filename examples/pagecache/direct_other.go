//go:build !linux

package main

import (
	"errors"
	"os"
	"runtime"
)

// openDirect is for Linux alone.
func openDirect(name string, _ int) (*os.File, error) {
	return nil, &os.PathError{Op: "open with O_DIRECT", Path: name + " on " + runtime.GOOS, Err: errors.ErrUnsupported}
}
