// C++ in C: an allocator that has C++'s operators of its own, or with -DPROGRAM a program that uses them, or with -DTHROWS a C++ library that has no
// memory.
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#define NEW(each)                                                                                   \
	each(_Znwm, (size_t size), (1001))                                                          \
	each(_Znam, (size_t size), (1002))                                                          \
	each(_ZnwmRKSt9nothrow_t, (size_t size, const void *tag), (1003, ""))                       \
	each(_ZnamRKSt9nothrow_t, (size_t size, const void *tag), (1004, ""))                       \
	each(_ZnwmSt11align_val_t, (size_t size, size_t align), (1005, 64))                         \
	each(_ZnamSt11align_val_t, (size_t size, size_t align), (1006, 64))                         \
	each(_ZnwmSt11align_val_tRKSt9nothrow_t, (size_t size, size_t align, const void *tag), (1007, 64, "")) \
	each(_ZnamSt11align_val_tRKSt9nothrow_t, (size_t size, size_t align, const void *tag), (1008, 64, ""))
#define DELETE(each)                                                                            \
	each(_ZdlPv, (void *p), (p))                                                            \
	each(_ZdaPv, (void *p), (p))                                                            \
	each(_ZdlPvm, (void *p, size_t size), (p, 1))                                           \
	each(_ZdaPvm, (void *p, size_t size), (p, 1))                                           \
	each(_ZdlPvRKSt9nothrow_t, (void *p, const void *tag), (p, ""))                         \
	each(_ZdaPvRKSt9nothrow_t, (void *p, const void *tag), (p, ""))                         \
	each(_ZdlPvSt11align_val_t, (void *p, size_t align), (p, 64))                           \
	each(_ZdaPvSt11align_val_t, (void *p, size_t align), (p, 64))                           \
	each(_ZdlPvmSt11align_val_t, (void *p, size_t size, size_t align), (p, 1, 64))          \
	each(_ZdaPvmSt11align_val_t, (void *p, size_t size, size_t align), (p, 1, 64))          \
	each(_ZdlPvSt11align_val_tRKSt9nothrow_t, (void *p, size_t align, const void *tag), (p, 64, "")) \
	each(_ZdaPvSt11align_val_tRKSt9nothrow_t, (void *p, size_t align, const void *tag), (p, 64, ""))

#ifdef PROGRAM

#define DECLARE(name, parameters, arguments) extern void *name parameters;
NEW(DECLARE)
#undef DECLARE
#define DECLARE(name, parameters, arguments) extern void name parameters;
DELETE(DECLARE)

// main calls each new and frees the block by free, and then each delete of a block of malloc: in allocators that have all of these that is right.
int main(int argc, char **argv)
{
	void *volatile p;
	(void)argv;
#define CALL(name, parameters, arguments) \
	p = name arguments;               \
	free(p);
	NEW(CALL)
#undef CALL
#define CALL(name, parameters, arguments) \
	p = malloc(2000);                 \
	name arguments;
	DELETE(CALL)
	p = _ZnwmRKSt9nothrow_t(SIZE_MAX / 2, "");
	if (p != NULL)
		abort();
	if (argc > 1) // which is thrown
		_Znwm(SIZE_MAX / 2);
	return 0;
}

#elif defined(THROWS)

void *_Znwm(size_t size)
{
	printf("thrown %d\n", size == SIZE_MAX / 2);
	fflush(stdout);
	_Exit(3);
}

#else

static _Alignas(64) char memory[1 << 20];
static size_t used;

static void *own(size_t size)
{
	size_t at = used;
	if (size > sizeof(memory) - used)
		return NULL;
	used += (size + 63) & ~(size_t)63;
	return memory + at;
}

// The compiler would have calls of each other for these.
void *malloc(size_t size) { return own(size); }
void free(void *p) { (void)p; }

// malloc_usable_size allocates, as that of tcmalloc does the first time.
size_t malloc_usable_size(void *p)
{
	void *_Znwm(size_t);
	return _Znwm(1500) == p;
}

void *calloc(size_t many, size_t each) { return own(many * each); }
void *realloc(void *p, size_t size) { return p == NULL ? own(size) : NULL; }

#define DEFINE(name, parameters, arguments) \
	void *name parameters { return own(size); }
NEW(DEFINE)
#undef DEFINE
#define DEFINE(name, parameters, arguments) \
	void name parameters { free(p); }
DELETE(DEFINE)

#endif
