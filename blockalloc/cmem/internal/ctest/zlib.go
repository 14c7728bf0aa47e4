//go:build cgo && unix && zlib

package ctest

/*
#cgo LDFLAGS: -lz
#include <stdint.h>
#include <string.h>
#include <zlib.h>

extern void *ctestAllocate(uintptr_t mem, unsigned int items, unsigned int size);
extern void ctestFree(uintptr_t mem, void *p);

static voidpf allocate(voidpf mem, uInt items, uInt size) { return ctestAllocate((uintptr_t)mem, items, size); }
static void release(voidpf mem, voidpf p) { ctestFree((uintptr_t)mem, p); }

// both has a stream's functions for memory ask Go.
static void both(z_stream *s, uintptr_t mem) {
	memset(s, 0, sizeof *s);
	s->zalloc = allocate;
	s->zfree = release;
	s->opaque = (voidpf)mem;
}

// compress_with and uncompress_with return how many bytes they have written to out, -1 if anything has failed.
static long compress_with(uintptr_t mem, void *in, unsigned int n, void *out, unsigned int room) {
	z_stream s;
	both(&s, mem);
	if (deflateInit(&s, 9) != Z_OK)
		return -1;
	s.next_in = in, s.avail_in = n, s.next_out = out, s.avail_out = room;
	int r = deflate(&s, Z_FINISH);
	if (deflateEnd(&s) != Z_OK || r != Z_STREAM_END)
		return -1;
	return s.total_out;
}

static long uncompress_with(uintptr_t mem, void *in, unsigned int n, void *out, unsigned int room) {
	z_stream s;
	both(&s, mem);
	if (inflateInit(&s) != Z_OK)
		return -1;
	s.next_in = in, s.avail_in = n, s.next_out = out, s.avail_out = room;
	int r = inflate(&s, Z_FINISH);
	if (inflateEnd(&s) != Z_OK || r != Z_STREAM_END)
		return -1;
	return s.total_out;
}
*/
import "C"

import (
	"errors"
	"runtime/cgo"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// Memory is what zlib is given for its own: by its address alone a block must be found.
type Memory interface {
	blockalloc.Allocator
	blockalloc.Finder
}

// ErrZlib is all that zlib can say here.
var ErrZlib = errors.New("zlib has failed")

// Compress has zlib write what is in the block from to the block to, and returns how many bytes there are then. What zlib needs
// meanwhile is of mem.
func Compress(mem Memory, from, to blockalloc.Block) (int, error) {
	h := cgo.NewHandle(mem)
	defer h.Delete()
	return written(C.compress_with(C.uintptr_t(h), from.Pointer(), C.uint(from.Requested()), to.Pointer(), C.uint(to.Requested())))
}

// Uncompress is the reverse of Compress.
func Uncompress(mem Memory, from blockalloc.Block, n int, to blockalloc.Block) (int, error) {
	h := cgo.NewHandle(mem)
	defer h.Delete()
	return written(C.uncompress_with(C.uintptr_t(h), from.Pointer(), C.uint(n), to.Pointer(), C.uint(to.Requested())))
}

func written(n C.long) (int, error) {
	if n < 0 {
		return 0, ErrZlib
	}
	return int(n), nil
}

//export ctestAllocate
func ctestAllocate(mem C.uintptr_t, items, size C.uint) unsafe.Pointer {
	b, err := cgo.Handle(mem).Value().(Memory).Allocate(blockalloc.Layout{Size: uintptr(items) * uintptr(size), Align: 16})
	if err != nil {
		return nil
	}
	p, _ := b.IntoRaw()
	return p
}

//export ctestFree
func ctestFree(mem C.uintptr_t, p unsafe.Pointer) {
	m := cgo.Handle(mem).Value().(Memory)
	b, ok := m.Find(p)
	if !ok || b.Pointer() != p {
		panic("ctest: zlib frees what is not live")
	}
	if err := m.Free(b); err != nil {
		panic(err)
	}
}
