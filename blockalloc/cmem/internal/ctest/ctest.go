//go:build cgo && unix

package ctest

/*
#include <stdlib.h>
#include <string.h>

// join returns a and b as one string of malloc, which the caller frees.
static char *join(const char *a, const char *b) {
	char *s = malloc(strlen(a) + strlen(b) + 1);
	if (s)
		strcat(strcpy(s, a), b);
	return s;
}

// A list owns the memory of its items, each a string.
typedef struct list {
	char *item;
	struct list *next;
} list;

static list *push(list *l, char *item) {
	list *n = malloc(sizeof *n);
	if (!n)
		abort();
	n->item = item;
	n->next = l;
	return n;
}

// end frees the list and its items, and returns how long these were in all.
static size_t end(list *l) {
	size_t sum = 0;
	while (l) {
		list *next = l->next;
		sum += strlen(l->item);
		free(l->item);
		free(l);
		l = next;
	}
	return sum;
}

static void *volatile escaped;

// pairs allocates and frees n times in a row.
static void pairs(int n, size_t size) {
	while (n-- > 0) {
		void *p = malloc(size);
		escaped = p;
		free(p);
	}
}
*/
import "C"

import "unsafe"

// Join returns a and b as one string of C's, with a 0 at its end: of len(a)+len(b)+1 bytes. The caller frees it.
func Join(a, b string) unsafe.Pointer {
	x, y := C.CString(a), C.CString(b)
	defer C.free(unsafe.Pointer(x))
	defer C.free(unsafe.Pointer(y))
	return unsafe.Pointer(C.join(x, y))
}

// A List is a list of strings in C. It is for one goroutine.
type List struct{ list *C.list }

// Push adds a string of C's, with a 0 at its end, whose memory the list now owns.
func (l *List) Push(p unsafe.Pointer) { l.list = C.push(l.list, (*C.char)(p)) }

// End frees the list and its strings by C's free, and returns how many bytes these had in all.
func (l *List) End() int {
	n := C.end(l.list)
	l.list = nil
	return int(n)
}

// Malloc calls C's malloc.
func Malloc(size uintptr) unsafe.Pointer { return C.malloc(C.size_t(size)) }

// Free calls C's free.
func Free(p unsafe.Pointer) { C.free(p) }

// Pairs calls C's malloc and free n times in a row, from C.
func Pairs(n int, size uintptr) { C.pairs(C.int(n), C.size_t(size)) }
