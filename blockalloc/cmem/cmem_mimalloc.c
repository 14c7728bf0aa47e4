//go:build cgo && unix && mimalloc

#include <mimalloc.h>
#include "cmem.h"

static cmem_block granted(void *p) {
	cmem_block b = {p, p ? mi_usable_size(p) : 0};
	return b;
}

// With an offset, of 0: mi_malloc_aligned of version 2.0.9 may give 1 KiB at an address that is no multiple of that.
cmem_block cmem_malloc(size_t size, size_t align, int zeroed) {
	return granted(zeroed ? mi_zalloc_aligned_at(size, align, 0) : mi_malloc_aligned_at(size, align, 0));
}

cmem_block cmem_realloc(void *p, size_t old, size_t size, size_t align) {
	return granted(mi_realloc_aligned_at(p, size, align, 0));
}

size_t cmem_resize(void *p, size_t size, size_t align) {
	return mi_expand(p, size) ? mi_usable_size(p) : 0; // within what it has
}

size_t cmem_usable(void *p, size_t size) { return mi_usable_size(p); }

void cmem_free(void *p) { mi_free(p); }

const char *cmem_library(void) { return "mimalloc"; }
