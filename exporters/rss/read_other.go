//go:build !linux

package rss

import (
	"errors"
	"fmt"
	"runtime"

	"github.com/alloctrace/alloctrace/counter"
)

// Read fails: see the package.
func Read(...counter.Source) (Report, error) {
	return Report{}, fmt.Errorf("rss: Read: %w on %s: the figures are of /proc/self/smaps of Linux", errors.ErrUnsupported, runtime.GOOS)
}
