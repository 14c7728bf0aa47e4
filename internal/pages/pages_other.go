//go:build !unix && !windows

package pages

import (
	"errors"
	"os"
	"unsafe"
)

// Supported reports whether the platform has pages.
const Supported = false

// PurgeZeroes reports whether pages are zero after Purge.
const PurgeZeroes = false

// CanShrink reports whether part of a mapping can be unmapped.
const CanShrink = false

func Map(_, _ uintptr) (unsafe.Pointer, error) { return nil, errors.ErrUnsupported }

func Reserve(_, _ uintptr) (unsafe.Pointer, error) { return nil, errors.ErrUnsupported }

func Commit(unsafe.Pointer, uintptr) error { return errors.ErrUnsupported }

func Purge(unsafe.Pointer, uintptr) error { return errors.ErrUnsupported }

func Seal(unsafe.Pointer, uintptr) error { return errors.ErrUnsupported }

func Unmap(unsafe.Pointer, uintptr) error { return errors.ErrUnsupported }

func MapFile(*os.File, uintptr) (unsafe.Pointer, error) { return nil, errors.ErrUnsupported }

func DetachFile(unsafe.Pointer, uintptr) error { return errors.ErrUnsupported }
