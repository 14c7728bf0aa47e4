// Package cmem allocates from C's heap: by malloc, calloc, posix_memalign, realloc and free. With an alloctrace.Proxy around
// it, memory that a program hands to C libraries, or takes over from them, is counted, traced and checked for leaks as all
// other memory is:
//
//	mem := alloctrace.Wrap(&cmem.Malloc{}, alloctrace.WithName("zlib"))
//
// # When to use it
//
// Use it for memory that C frees, or that C has allocated. For other memory that C only reads and writes, any
// allocator outside the Go heap will do, such as [blockalloc.Pool], whose blocks C can use like any pointer. Those are better
// where blocks have a page or more: a Pool takes no call of C, aligns blocks to their size without slack, and gives memory
// back to the system when it is asked to. C's heap is shared with all C code of the process, may be fragmented by that, and
// decides by itself what it keeps.
//
// # Memory that changes hands
//
// Some libraries are given functions for their memory, such as zlib's zalloc and zfree. Two exported Go functions are
// enough: one allocates, and returns the pointer of Block.IntoRaw; the other has a pointer alone, and frees what Find finds.
//
// [IntoC] gives a block to C, which frees it by free(3). The Proxy counts the block as freed, and hooks observe that. [FromC]
// takes over what C has allocated by malloc(3). The Proxy counts the block as allocated. They are to C what Block.IntoRaw
// and blockalloc.FromRaw are to Go, with one difference: those take a Block apart and make it again while it stays
// allocated and counted.
//
// # Which malloc
//
// It is the one that the program is linked with. With the build tag jemalloc or mimalloc, it is that library, which must
// be installed: by its own functions, which know how to resize in place. As Debian and others build them, both also take the
// place of malloc and free in the whole process, so that blocks still change hands. In a build that does not, such as one
// with a prefix, what IntoC returns must be freed by that library's own function.
//
// # Where it works
//
// It needs cgo, and a Unix system: on Windows, C's free cannot take aligned memory. Elsewhere the package compiles, and
// each request is refused with [errors.ErrUnsupported], as [blockalloc.System] does where there is none.
package cmem
