#include <stddef.h>

// Memory, and how many bytes there are.
typedef struct {
	void *p;
	size_t size;
} cmem_block;

cmem_block cmem_malloc(size_t size, size_t align, int zeroed);
cmem_block cmem_realloc(void *p, size_t old, size_t size, size_t align);
size_t cmem_resize(void *p, size_t size, size_t align);
size_t cmem_usable(void *p, size_t size);
void cmem_free(void *p);
const char *cmem_library(void);
