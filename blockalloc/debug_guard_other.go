//go:build !unix && !windows

package blockalloc

import (
	"errors"
	"unsafe"
)

// hasGuards: there are no mappings, and blocks come from the parent.
const hasGuards = false

func mapGuarded(Layout) (*debugBlock, error) { return nil, errors.ErrUnsupported }

func seal(unsafe.Pointer, uintptr) error { return errors.ErrUnsupported }
