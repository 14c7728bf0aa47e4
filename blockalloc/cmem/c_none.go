//go:build !cgo || !unix

package cmem

import "unsafe"

// Without C there is no memory.

var library = unsupported

func malloc(_, _ uintptr, _ bool) (unsafe.Pointer, uintptr) { return nil, 0 }

func realloc(_ unsafe.Pointer, _, _, _ uintptr) (unsafe.Pointer, uintptr) { return nil, 0 }

func resizeInPlace(unsafe.Pointer, uintptr, uintptr) uintptr { return 0 }

func usableSize(_ unsafe.Pointer, size uintptr) uintptr { return size }

func free(unsafe.Pointer) {}
