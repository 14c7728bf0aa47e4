//go:build !unix && !windows

package blockalloc

import (
	"errors"
	"unsafe"
)

const canShrink = false

func mapAligned(_, _ uintptr) (unsafe.Pointer, error) { return nil, errors.ErrUnsupported }

func unmap(unsafe.Pointer, uintptr) error { return errors.ErrUnsupported }

func applyOption(int, []byte, string) error { return errors.ErrUnsupported }
