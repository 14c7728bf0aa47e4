//go:build cgo && unix

package cmem

// #include "cmem.h"
import "C"

import "unsafe"

// library says whose malloc it is.
var library = C.GoString(C.cmem_library())

// malloc returns memory of size bytes, at least 1, and how many bytes there are; nil if C has none. Zeroed is said of the
// bytes that were asked for.
func malloc(size, align uintptr, zeroed bool) (unsafe.Pointer, uintptr) {
	clear := C.int(0)
	if zeroed {
		clear = 1
	}
	r := C.cmem_malloc(C.size_t(size), C.size_t(align), clear)
	return r.p, uintptr(r.size)
}

// realloc is malloc of memory that begins with what is at p, of which there are old bytes. It frees p, unless it returns nil.
func realloc(p unsafe.Pointer, old, size, align uintptr) (unsafe.Pointer, uintptr) {
	r := C.cmem_realloc(p, C.size_t(old), C.size_t(size), C.size_t(align))
	return r.p, uintptr(r.size)
}

// resizeInPlace has p have size bytes, if it can, and returns how many there are.
func resizeInPlace(p unsafe.Pointer, size, align uintptr) uintptr {
	return uintptr(C.cmem_resize(p, C.size_t(size), C.size_t(align)))
}

// usableSize returns how many bytes there are at p, for which size bytes were asked; as many if C does not say.
func usableSize(p unsafe.Pointer, size uintptr) uintptr {
	return uintptr(C.cmem_usable(p, C.size_t(size)))
}

func free(p unsafe.Pointer) { C.cmem_free(p) }
