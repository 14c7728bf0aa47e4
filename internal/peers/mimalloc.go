//go:build cgo && unix && mimalloc

package peers

/*
#cgo LDFLAGS: -lmimalloc
#include <mimalloc.h>
*/
import "C"

import "unsafe"

// mimalloc is Microsoft's allocator, as Debian has it.
type mimalloc struct{}

func init() {
	buffers = append(buffers, func() (string, bufferSource) { return "mimalloc", mimalloc{} })
}

func (mimalloc) get(size int) buffer {
	return buffer{mem: unsafe.Slice((*byte)(C.mi_malloc(C.size_t(size))), size)}
}

func (mimalloc) put(b buffer) { C.mi_free(unsafe.Pointer(unsafe.SliceData(b.mem))) }
