// A recorder of malloc and its kin, for programs that this project did not build: LD_PRELOAD has the dynamic linker load it
// before the C library. It is for Linux, and built by package preload:
//
//	cc -O2 -fPIC -shared -static-libgcc -fexceptions -Wl,--wrap=_dl_find_object -o preload.so preload.c
//
// It records malloc, calloc, realloc, reallocarray, free, free_sized, free_aligned_sized, posix_memalign, aligned_alloc, memalign,
// valloc and pvalloc. Blocks have nothing added, so that malloc_usable_size and the like are the allocator's own. Not seen are: static
// programs, those whose malloc is inside them, set-user-ID programs, mmap, and functions of one library alone, such as jemalloc's
// mallocx.
//
// ALLOCTRACE_PRELOAD has four words: the most bytes of a file, how many calls of a stack, a process ID, and a directory, which may
// have spaces. Recorded is the child of that process, also after it has executed another program. If it is 0, all processes
// are: each, and each program that it executes, has a file of its own.
//
// file.h has what it writes.
//
// # What others have learnt the hard way
//
// - dlsym calls calloc: until all functions are found, memory comes from a small arena, which is never freed, or recorded.
// - Programs close files that are not theirs: no file is kept open. So one that changes its root or user loses the rest,
//   which it says in the header.
// - fork without its handlers, by a system call: what the child must not use is in a page that the kernel clears then.
// - dl_iterate_phdr takes a lock, with which a program deadlocks that holds it: stacks are walked only where the unwinder finds tables
//   by _dl_find_object (glibc 2.35), which takes none. Elsewhere a stack is the caller alone.
// - The unwinder of libgcc refers to that function, and a C library without it, such as musl, would not start the program: it gets
//   __wrap__dl_find_object.
// - Thread-local variables may be allocated by malloc: the model initial-exec never is.
#define _GNU_SOURCE
#define _FILE_OFFSET_BITS 64
#include <dlfcn.h>
#include <stdlib.h>
#include "file.h"

static struct {
	void *(*malloc)(size_t);
	void *(*calloc)(size_t, size_t);
	void *(*realloc)(void *, size_t);
	void (*free)(void *);
	int (*posix_memalign)(void **, size_t, size_t);
	void *(*aligned_alloc)(size_t, size_t);
	void *(*memalign)(size_t, size_t);
	size_t (*usable)(void *);
	int (*dlclose)(void *);
	int (*find_object)(void *, void *); // NULL before glibc 2.35
} inner;

// The arena has what is allocated before the inner functions are known.
static _Alignas(16) char arena[64 << 10];
static _Atomic size_t arena_used;

static int same_library(void *a, void *b)
{
	Dl_info of_a, of_b;
	return a != NULL && b != NULL && dladdr(a, &of_a) && dladdr(b, &of_b) && of_a.dli_fbase == of_b.dli_fbase;
}

static int in_arena(const void *p) { return (uintptr_t)p - (uintptr_t)arena < sizeof(arena); }

static void *arena_allocate(size_t size, size_t align)
{
	size_t used = atomic_load_explicit(&arena_used, memory_order_relaxed), from;
	align = align < 16 ? 16 : align;
	do {
		uintptr_t base = (uintptr_t)arena;
		from = ((base + used + align - 1) & ~(uintptr_t)(align - 1)) - base;
		if (from > sizeof(arena) || size > sizeof(arena) - from) {
			errno = ENOMEM;
			return NULL;
		}
	} while (!atomic_compare_exchange_weak_explicit(&arena_used, &used, from + size, memory_order_relaxed, memory_order_relaxed));
	return arena + from;
}

// read_options reads what ALLOCTRACE_PRELOAD says, if there is an environment yet.
static void read_options(void)
{
	const char *text = getenv("ALLOCTRACE_PRELOAD");
	if (text == NULL || atomic_load_explicit(&set.options, memory_order_relaxed))
		return;
	set.most = take_number(&text);
	uint64_t frames = take_number(&text);
	set.frames = frames > MAX_FRAMES ? MAX_FRAMES : (unsigned)frames;
	set.parent = (pid_t)take_number(&text);
	size_t length = strlen(text);
	if (length == 0 || length >= sizeof(set.directory))
		return;
	memcpy(set.directory, text, length + 1);
	atomic_store_explicit(&set.options, 1, memory_order_release);
}

static void find_operators(void);

// start finds the inner functions. It returns whether they are known: they are not while dlsym is called.
static int start(void)
{
	int unknown = UNKNOWN;
	if (!atomic_compare_exchange_strong_explicit(&set.functions, &unknown, BEGUN, memory_order_acquire, memory_order_acquire))
		return unknown == READY;
	*(void **)&inner.malloc = dlsym(RTLD_NEXT, "malloc");
	*(void **)&inner.calloc = dlsym(RTLD_NEXT, "calloc");
	*(void **)&inner.realloc = dlsym(RTLD_NEXT, "realloc");
	*(void **)&inner.free = dlsym(RTLD_NEXT, "free");
	*(void **)&inner.posix_memalign = dlsym(RTLD_NEXT, "posix_memalign");
	*(void **)&inner.aligned_alloc = dlsym(RTLD_NEXT, "aligned_alloc");
	*(void **)&inner.memalign = dlsym(RTLD_NEXT, "memalign");
	*(void **)&inner.usable = dlsym(RTLD_NEXT, "malloc_usable_size");
	if (!same_library(*(void **)&inner.malloc, *(void **)&inner.usable))
		inner.usable = NULL; // which is of another allocator
	find_operators();
	*(void **)&inner.dlclose = dlsym(RTLD_NEXT, "dlclose");
	*(void **)&inner.find_object = dlsym(RTLD_DEFAULT, "_dl_find_object");
	set.walks = inner.find_object != NULL;
	size_t size = (sizeof(struct process) + 4095) & ~(size_t)4095;
	void *page = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	// Without the page, or a kernel that clears it, nothing is recorded, and the program goes on.
	if (page != MAP_FAILED && madvise(page, size, MADV_WIPEONFORK) == 0 && pthread_key_create(&set.key, leave) == 0) {
		process = page;
		process->pid = getpid();
	}
	read_options();
	dlerror(); // is to say nothing of what was not found
	atomic_store_explicit(&set.functions, READY, memory_order_release);
	return 1;
}

static inline int ready(void) { return atomic_load_explicit(&set.functions, memory_order_acquire) == READY || start(); }

// tell records an event, unless an inner function has called one of ours: that of the outermost call is told. It keeps errno.
static void tell(int kind, const void *addr, size_t size, size_t align, void *caller)
{
	struct process *p = process;
	if (p == NULL || self.depth > 0)
		return;
	int state = atomic_load_explicit(&p->state, memory_order_acquire), error = errno;
	if (state == UNKNOWN) {
		open_file(p);
		state = atomic_load_explicit(&p->state, memory_order_acquire);
	}
	if (state != OFF && (state != UNKNOWN || atomic_load_explicit(&set.options, memory_order_acquire))) {
		size_t usable = 0;
		if (kind <= REALLOCATED && inner.usable != NULL) {
			self.depth++; // the first time that may allocate
			usable = inner.usable((void *)(uintptr_t)addr);
			self.depth--;
		}
		if (state == READY)
			record(p, kind, addr, size, usable, align, caller);
		else
			atomic_fetch_add_explicit(&p->seq, 1, memory_order_relaxed); // it is lost
	}
	self.acquired = kind == ALLOCATED ? addr : NULL;
	errno = error;
}

#define CALLER __builtin_extract_return_addr(__builtin_return_address(0))
#define EXPORT __attribute__((visibility("default")))

static inline void *acquired(void *p, size_t size, size_t align, void *caller)
{
	tell(p != NULL ? ALLOCATED : ALLOCATE_FAILED, p, size, align, caller);
	return p;
}

// aligned allocates by a function that may not be there. An alignment that is no power of two is for the allocator to refuse.
static void *aligned(void *(**allocate)(size_t, size_t), size_t align, size_t size, void *caller)
{
	if (!ready())
		return arena_allocate(size, align);
	if (*allocate == NULL) {
		errno = ENOMEM;
		return NULL;
	}
	self.depth++;
	void *p = (*allocate)(align, size);
	self.depth--;
	if (align < _Alignof(max_align_t) || (align & (align - 1)) != 0)
		align = _Alignof(max_align_t);
	return acquired(p, size, align, caller);
}

static void *reallocated(void *old, size_t size, void *caller)
{
	void *p;
	if (!ready() || in_arena(old)) {
		p = ready() ? inner.malloc(size) : arena_allocate(size, 0);
		size_t most = (size_t)(arena + sizeof(arena) - (char *)old); // its size is not known, and what follows it is there
		if (p != NULL && old != NULL)
			memcpy(p, old, size < most ? size : most);
		return in_arena(p) ? p : acquired(p, size, _Alignof(max_align_t), caller);
	}
	if (old != NULL) // to reallocate to no bytes is to free, and perhaps to allocate none
		tell(size > 0 ? REALLOCATING : FREEING, old, 0, 1, caller);
	self.depth++;
	p = inner.realloc(old, size);
	self.depth--;
	if (old == NULL)
		return acquired(p, size, _Alignof(max_align_t), caller);
	if (size > 0)
		tell(p != NULL ? REALLOCATED : REALLOCATE_FAILED, p != NULL ? p : old, size, _Alignof(max_align_t), caller);
	else if (p != NULL)
		acquired(p, size, _Alignof(max_align_t), caller);
	return p;
}

static inline void released(void *p, void *caller)
{
	if (p == NULL || in_arena(p) || !ready())
		return;
	tell(FREEING, p, 0, 1, caller);
	self.depth++;
	inner.free(p);
	self.depth--;
}

static inline void *allocated(size_t size, void *caller)
{
	if (!ready())
		return arena_allocate(size, 0);
	self.depth++;
	void *p = inner.malloc(size);
	self.depth--;
	return acquired(p, size, _Alignof(max_align_t), caller);
}

EXPORT void *malloc(size_t size) { return allocated(size, CALLER); }

EXPORT void *calloc(size_t many, size_t each)
{
	size_t size;
	if (__builtin_mul_overflow(many, each, &size))
		size = SIZE_MAX;
	if (!ready())
		return arena_allocate(size, 0); // which is of zeros, and used once
	self.depth++;
	void *p = inner.calloc(many, each);
	self.depth--;
	return acquired(p, size, _Alignof(max_align_t), CALLER);
}

EXPORT void *realloc(void *old, size_t size) { return reallocated(old, size, CALLER); }

EXPORT void *reallocarray(void *old, size_t many, size_t each)
{
	size_t size;
	if (__builtin_mul_overflow(many, each, &size))
		size = SIZE_MAX; // which nobody has
	return reallocated(old, size, CALLER);
}

EXPORT void free(void *p) { released(p, CALLER); }

// Those of C23 may not be in the C library (glibc 2.43): a program has them from here then, too.
EXPORT void free_sized(void *p, size_t size)
{
	(void)size;
	released(p, CALLER);
}

EXPORT void free_aligned_sized(void *p, size_t align, size_t size)
{
	(void)align, (void)size;
	released(p, CALLER);
}

EXPORT int posix_memalign(void **to, size_t align, size_t size)
{
	if (!ready())
		return (*to = arena_allocate(size, align)) == NULL ? ENOMEM : 0;
	if (inner.posix_memalign == NULL)
		return ENOMEM;
	self.depth++;
	int error = inner.posix_memalign(to, align, size);
	self.depth--;
	if (error != EINVAL)
		acquired(error == 0 ? *to : NULL, size, align < _Alignof(max_align_t) ? _Alignof(max_align_t) : align, CALLER);
	return error;
}

EXPORT void *aligned_alloc(size_t align, size_t size) { return aligned(&inner.aligned_alloc, align, size, CALLER); }

EXPORT void *memalign(size_t align, size_t size) { return aligned(&inner.memalign, align, size, CALLER); }

EXPORT void *valloc(size_t size) { return aligned(&inner.memalign, (size_t)sysconf(_SC_PAGESIZE), size, CALLER); }

EXPORT void *pvalloc(size_t size)
{
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	return aligned(&inner.memalign, page, size > SIZE_MAX - page ? size : (size + page - 1) / page * page, CALLER);
}

#include "operators.h"

// The environment is there at the latest when constructors are called.
__attribute__((constructor)) static void begin(void)
{
	if (ready())
		read_options();
}

// What the unwinder of libgcc calls. Without the function it is not asked for stacks.
int __wrap__dl_find_object(void *pc, void *result);
int __wrap__dl_find_object(void *pc, void *result) { return inner.find_object == NULL ? -1 : inner.find_object(pc, result); }

// note_maps writes which files are mapped now.
static void note_maps(void)
{
	struct process *p = process;
	if (p == NULL || self.recording || atomic_load_explicit(&p->state, memory_order_acquire) != READY)
		return;
	int cancelling = uncancelled(), error = errno;
	write_maps(p);
	errno = error;
	pthread_setcancelstate(cancelling, NULL);
}

// dlclose may be the end of a library that was loaded for less than a chunk takes, and another one may be loaded where it was.
EXPORT int dlclose(void *library)
{
	if (!ready() || inner.dlclose == NULL)
		return -1;
	note_maps();
	int failed = inner.dlclose(library);
	note_maps();
	return failed;
}

// What is known at exit alone, and files that were mapped since the last chunk was begun.
__attribute__((destructor)) static void end(void)
{
	struct process *p = process;
	if (p == NULL || atomic_load_explicit(&p->state, memory_order_acquire) != READY)
		return;
	int cancelling = uncancelled();
	p->header->resident = max_resident();
	write_events(p);
	pthread_setcancelstate(cancelling, NULL);
	note_maps();
}
