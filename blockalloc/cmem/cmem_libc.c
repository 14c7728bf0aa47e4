//go:build cgo && unix && !jemalloc && !mimalloc

#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <malloc.h>
#elif defined(__APPLE__)
#include <malloc/malloc.h>
#elif defined(__FreeBSD__)
#include <malloc_np.h>
#endif
#include "cmem.h"

size_t cmem_usable(void *p, size_t size) {
#if defined(__linux__) || defined(__FreeBSD__)
	return malloc_usable_size(p);
#elif defined(__APPLE__)
	return malloc_size(p);
#else
	return size;
#endif
}

static cmem_block granted(void *p, size_t size) {
	cmem_block b = {p, p ? cmem_usable(p, size) : 0};
	return b;
}

// Whether malloc aligns memory of that size as asked for. Allocators that take malloc's place align 8 bytes to 8.
static int is_natural(size_t size, size_t align) { return align <= 8 || (align <= 16 && size >= 16); }

cmem_block cmem_malloc(size_t size, size_t align, int zeroed) {
	void *p = NULL;
	if (is_natural(size, align))
		return granted(zeroed ? calloc(1, size) : malloc(size), size);
	if (posix_memalign(&p, align < sizeof p ? sizeof p : align, size))
		return granted(NULL, 0);
	if (zeroed)
		memset(p, 0, size);
	return granted(p, size);
}

cmem_block cmem_realloc(void *p, size_t old, size_t size, size_t align) {
	if (is_natural(size, align))
		return granted(realloc(p, size), size);
	cmem_block b = cmem_malloc(size, align, 0);
	if (b.p) {
		memcpy(b.p, p, old < b.size ? old : b.size);
		free(p);
	}
	return b;
}

size_t cmem_resize(void *p, size_t size, size_t align) { return 0; }

void cmem_free(void *p) { free(p); }

const char *cmem_library(void) { return "C"; }
