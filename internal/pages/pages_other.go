//go:build !unix && !windows

package pages

import (
	"errors"
	"unsafe"
)

// Supported says that there are pages to be had.
const Supported = false

// CanShrink: there is nothing to shrink.
const CanShrink = false

func Map(_, _ uintptr) (unsafe.Pointer, error) { return nil, errors.ErrUnsupported }

func Reserve(_, _ uintptr) (unsafe.Pointer, error) { return nil, errors.ErrUnsupported }

func Commit(unsafe.Pointer, uintptr) error { return errors.ErrUnsupported }

func Purge(unsafe.Pointer, uintptr) error { return errors.ErrUnsupported }

func Seal(unsafe.Pointer, uintptr) error { return errors.ErrUnsupported }

func Unmap(unsafe.Pointer, uintptr) error { return errors.ErrUnsupported }
