//go:build cgo && unix && jemalloc

#include <jemalloc/jemalloc.h>
#include "cmem.h"

static cmem_block granted(void *p) {
	cmem_block b = {p, p ? sallocx(p, 0) : 0};
	return b;
}

cmem_block cmem_malloc(size_t size, size_t align, int zeroed) {
	return granted(mallocx(size, MALLOCX_ALIGN(align) | (zeroed ? MALLOCX_ZERO : 0)));
}

cmem_block cmem_realloc(void *p, size_t old, size_t size, size_t align) {
	return granted(rallocx(p, size, MALLOCX_ALIGN(align)));
}

size_t cmem_resize(void *p, size_t size, size_t align) { return xallocx(p, size, 0, MALLOCX_ALIGN(align)); }

size_t cmem_usable(void *p, size_t size) { return sallocx(p, 0); }

void cmem_free(void *p) { dallocx(p, 0); }

const char *cmem_library(void) { return "jemalloc"; }
