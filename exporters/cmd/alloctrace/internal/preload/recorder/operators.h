// C++'s operators new and delete. Those of the C++ library call malloc and free, which are recorded. An allocator that a program
// links or preloads may have its own that do not, as jemalloc, tcmalloc and mimalloc: these are recorded here.
//
// A program without C++ may load the C++ library later, for a plugin alone, where RTLD_NEXT does not find it. All operators are those
// of this file then, which are malloc and free. What is to happen when there is no memory, the library knows.

// An operator is what a program would have without this file.
struct operator {
	void *next; // NULL if there is none
	int own;    // it is of the library that malloc is of
};

static void *refused(const char *name)
{
	static const char *const libraries[] = {"libstdc++.so.6", "libc++abi.so.1", "libc++.so.1"};
	for (size_t i = 0; i < sizeof(libraries) / sizeof(libraries[0]); i++) {
		void *library = dlopen(libraries[i], RTLD_LAZY | RTLD_NOLOAD), *of = library == NULL ? NULL : dlsym(library, name);
		if (of != NULL)
			return of;
	}
	abort();
}

#define ALIGN _Alignof(max_align_t)

#define NEW(name, parameters, arguments, align, throws)                                                                   \
	static struct operator of_##name;                                                                                 \
	EXPORT void *name parameters;                                                                                     \
	EXPORT void *name parameters                                                                                      \
	{                                                                                                                 \
		if (ready() && of_##name.next != NULL && !of_##name.own)                                                  \
			return ((void *(*)parameters)of_##name.next)arguments;                                            \
		if (of_##name.own) {                                                                                      \
			self.acquired = NULL; /* by malloc, if that is what it calls */                                   \
			void *p = ((void *(*)parameters)of_##name.next)arguments;                                         \
			return p == NULL || p != self.acquired ? acquired(p, size, align, CALLER) : p;                    \
		}                                                                                                         \
		void *p = align > ALIGN ? aligned(&inner.memalign, align, size > 0 ? size : 1, CALLER) : allocated(size > 0 ? size : 1, CALLER); \
		return p == NULL && throws ? ((void *(*)parameters)refused(#name))arguments : p;                          \
	}

#define DELETE(name, parameters, arguments)                                     \
	static struct operator of_##name;                                       \
	EXPORT void name parameters;                                            \
	EXPORT void name parameters                                             \
	{                                                                       \
		if (p == NULL || in_arena(p) || !ready())                       \
			return;                                                 \
		if (of_##name.next == NULL) {                                   \
			released(p, CALLER);                                    \
		} else if (!of_##name.own) {                                    \
			((void (*)parameters)of_##name.next)arguments;          \
		} else {                                                        \
			tell(FREEING, p, 0, 1, CALLER);                         \
			self.depth++; /* free, if that is what it calls, is not told */ \
			((void (*)parameters)of_##name.next)arguments;          \
			self.depth--;                                           \
		}                                                               \
	}

// The names have what size_t is: unsigned long, or int.
#if SIZE_MAX > UINT32_MAX
#define NAME(before, after) before##m##after
#else
#define NAME(before, after) before##j##after
#endif
#define EACH_NEW(each)                                                                                                                                   \
	each(NAME(_Znw, ), (size_t size), (size), ALIGN, 1)                                                                                              \
	each(NAME(_Zna, ), (size_t size), (size), ALIGN, 1)                                                                                              \
	each(NAME(_Znw, RKSt9nothrow_t), (size_t size, const void *nothrow), (size, nothrow), ALIGN, 0)                                                  \
	each(NAME(_Zna, RKSt9nothrow_t), (size_t size, const void *nothrow), (size, nothrow), ALIGN, 0)                                                  \
	each(NAME(_Znw, St11align_val_t), (size_t size, size_t align), (size, align), align, 1)                                                          \
	each(NAME(_Zna, St11align_val_t), (size_t size, size_t align), (size, align), align, 1)                                                          \
	each(NAME(_Znw, St11align_val_tRKSt9nothrow_t), (size_t size, size_t align, const void *nothrow), (size, align, nothrow), align, 0)              \
	each(NAME(_Zna, St11align_val_tRKSt9nothrow_t), (size_t size, size_t align, const void *nothrow), (size, align, nothrow), align, 0)
#define EACH_DELETE(each)                                                                                                    \
	each(_ZdlPv, (void *p), (p))                                                                                         \
	each(_ZdaPv, (void *p), (p))                                                                                         \
	each(NAME(_ZdlPv, ), (void *p, size_t size), (p, size))                                                              \
	each(NAME(_ZdaPv, ), (void *p, size_t size), (p, size))                                                              \
	each(_ZdlPvRKSt9nothrow_t, (void *p, const void *nothrow), (p, nothrow))                                             \
	each(_ZdaPvRKSt9nothrow_t, (void *p, const void *nothrow), (p, nothrow))                                             \
	each(_ZdlPvSt11align_val_t, (void *p, size_t align), (p, align))                                                     \
	each(_ZdaPvSt11align_val_t, (void *p, size_t align), (p, align))                                                     \
	each(NAME(_ZdlPv, St11align_val_t), (void *p, size_t size, size_t align), (p, size, align))                          \
	each(NAME(_ZdaPv, St11align_val_t), (void *p, size_t size, size_t align), (p, size, align))                          \
	each(_ZdlPvSt11align_val_tRKSt9nothrow_t, (void *p, size_t align, const void *nothrow), (p, align, nothrow))         \
	each(_ZdaPvSt11align_val_tRKSt9nothrow_t, (void *p, size_t align, const void *nothrow), (p, align, nothrow))
#define DEFINE_NEW(name, parameters, arguments, align, throws) NEW(name, parameters, arguments, align, throws)
#define DEFINE_DELETE(name, parameters, arguments) DELETE(name, parameters, arguments)

EACH_NEW(DEFINE_NEW)
EACH_DELETE(DEFINE_DELETE)

static void find_operator(struct operator *of, const char *name)
{
	of->next = dlsym(RTLD_NEXT, name);
	of->own = same_library(of->next, *(void **)&inner.malloc);
}

// find_operators is called once, before anything is recorded.
static void find_operators(void)
{
	if (dlsym(RTLD_NEXT, "_ZdlPv") == NULL)
		return;
#define FIND_NEW(name, parameters, arguments, align, throws) find_operator(&of_##name, #name);
#define FIND_DELETE(name, parameters, arguments) find_operator(&of_##name, #name);
#define FIND_EACH_NEW(name, parameters, arguments, align, throws) FIND_NEW(name, parameters, arguments, align, throws)
#define FIND_EACH_DELETE(name, parameters, arguments) FIND_DELETE(name, parameters, arguments)
	EACH_NEW(FIND_EACH_NEW)
	EACH_DELETE(FIND_EACH_DELETE)
}
