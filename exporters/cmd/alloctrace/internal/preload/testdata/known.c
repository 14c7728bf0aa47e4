// A program whose events are known: known MODE. It says on the standard output what a recording of it has.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static char buffer[1 << 16];

// say has a buffer of its own, so that the C library allocates none.
static void say(const char *format, ...)
{
	va_list list;
	va_start(list, format);
	vprintf(format, list);
	va_end(list);
}

// Kinds as in package alloctrace.
static void *is(int kind, void *p, size_t size, size_t align)
{
	if (p != NULL)
		memset(p, 1, size);
	say("%d %lx %zu %zu %zu\n", kind, (unsigned long)(uintptr_t)p, size, p == NULL ? (size_t)0 : malloc_usable_size(p), align);
	return p;
}

static void release(int kind, void *p) { say("%d %lx 0 0 1\n", kind, (unsigned long)(uintptr_t)p); }

static void *resize(void *p, size_t size)
{
	release(3, p);
	void *q = realloc(p, size);
	say("2 %lx %zu %zu 16\n", (unsigned long)(uintptr_t)q, size, malloc_usable_size(q));
	return q;
}

#pragma weak free_sized
#pragma weak free_aligned_sized
void free_sized(void *p, size_t size);
void free_aligned_sized(void *p, size_t align, size_t size);

static void end(void *p)
{
	release(4, p);
	free(p);
}

// all calls every function, and says of every event what it is.
static void all(void)
{
	void *p, *q;
	volatile size_t huge = SIZE_MAX / 2;
	end(is(1, malloc(100), 100, 16));
	end(is(1, malloc(0), 0, 16));
	end(is(1, calloc(10, 33), 330, 16));
	p = is(1, realloc(NULL, 24), 24, 16);
	q = is(1, malloc(10), 10, 16); // so that p cannot grow where it is
	p = resize(p, 100000);
	p = resize(p, 200000); // by moving pages
	p = resize(p, 50);
	p = resize(p, 50);
	release(4, p);
	if (realloc(p, 0) != NULL)
		say("realloc to 0 has returned a block\n");
	q = resize(q, 3);
	uintptr_t still = (uintptr_t)q;
	release(3, q);
	p = realloc(q, huge);
	if (p == NULL)
		say("6 %lx %zu 0 16\n", (unsigned long)still, huge);
	end((void *)still);
	is(5, malloc(huge), huge, 16);
	is(5, calloc(huge, 4), SIZE_MAX, 16);
	is(5, reallocarray(NULL, huge, 4), SIZE_MAX, 16);
	is(5, memalign((size_t)1 << 60, 5), 5, (size_t)1 << 60);
	p = is(1, malloc(30), 30, 16);
	release(3, p);
	if (reallocarray(p, huge, 4) == NULL)
		say("6 %lx %zu 0 16\n", (unsigned long)(uintptr_t)p, SIZE_MAX);
	release(4, p);
	if (free_sized == NULL)
		say("there is no free_sized\n");
	else
		free_sized(p, 30);
	p = is(1, aligned_alloc(64, 128), 128, 64);
	release(4, p);
	if (free_aligned_sized == NULL)
		say("there is no free_aligned_sized\n");
	else
		free_aligned_sized(p, 64, 128);
	end(is(1, reallocarray(NULL, 7, 9), 63, 16));
	if (posix_memalign(&p, 64, 1000) == 0)
		end(is(1, p, 1000, 64));
	if (posix_memalign(&p, 3, 1000) == 0)
		say("posix_memalign aligns to 3\n");
	end(is(1, aligned_alloc(4096, 8192), 8192, 4096));
	end(is(1, memalign(256, 5), 5, 256));
	end(is(1, valloc(5000), 5000, 4096));
	end(is(1, pvalloc(5000), 8192, 4096));
	free(NULL);
	is(1, malloc(77), 77, 16); // leaks
}

// walk calls what valgrind counts without peculiarities, and leaves some blocks.
static void walk(void)
{
	void *of[100] = {NULL};
	uint64_t x = 1;
	for (int i = 0; i < 5000; i++) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		void **at = &of[x % 100];
		size_t size = 1 + x / 100 % 3000;
		switch (x >> 60 & 3) {
		case 0:
			free(*at);
			*at = malloc(size);
			break;
		case 1:
			free(*at);
			*at = calloc(3, size);
			break;
		case 2:
			*at = realloc(*at, size);
			break;
		default:
			free(*at);
			*at = memalign(64, size);
		}
	}
}

enum { THREADS = 4, ROUNDS = 8000, SHELF = 64 };

static _Atomic(void *) shelf[SHELF];

// work puts blocks on a shelf from which others take them, to free or reallocate them.
static void *work(void *seed)
{
	uint64_t x = (uintptr_t)seed * 0x9e3779b97f4a7c15u + 1;
	for (int i = 0; i < ROUNDS; i++) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		size_t size = x % 8 == 0 ? 1 + x / 8 % 300000 : 1 + x / 8 % 2000;
		_Atomic(void *) *at = &shelf[x >> 40 & (SHELF - 1)];
		if (x >> 60 & 1) {
			void *p = atomic_exchange(at, NULL), *q = p == NULL ? malloc(size) : realloc(p, size);
			free(atomic_exchange(at, q));
		} else
			free(atomic_exchange(at, malloc(size)));
	}
	return NULL;
}

static void threads(void)
{
	pthread_t of[THREADS];
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&of[i], NULL, work, (void *)i);
	for (int i = 0; i < THREADS; i++)
		pthread_join(of[i], NULL);
	for (int i = 0; i < SHELF; i++)
		free(shelf[i]);
}

// limited is threads with files of 1 MiB at most.
static void limited(void)
{
	struct rlimit limit = {1 << 20, 1 << 20};
	if (setrlimit(RLIMIT_FSIZE, &limit) == 0)
		threads();
}

static void *one(void *unused)
{
	(void)unused;
	free(malloc(11));
	return NULL;
}

// late has the C library free a block when the thread has ended, after the destructors of its keys.
static void *late(void *unused)
{
	if (strerror(123456) == NULL)
		abort();
	return one(unused);
}

static void in_turn(int many, void *(*run)(void *))
{
	for (int i = 0; i < many; i++) {
		pthread_t t;
		pthread_create(&t, NULL, run, NULL);
		pthread_join(t, NULL);
	}
}

// storm has 3000 threads, one after the other.
static void storm(void) { in_turn(3000, one); }

static void lates(void) { in_turn(300, late); }

// confined may write to no file any more.
static void confined(void)
{
	struct rlimit limit = {0, 0};
	free(malloc(88)); // makes the file
	if (setrlimit(RLIMIT_FSIZE, &limit) == 0)
		for (int i = 1; i < 100; i++)
			free(malloc(88));
}

// away renames the file of the recorder, PID.0, to PID.00, so that it cannot be opened any more, and kills itself.
static void away(void)
{
	const char *dir = getenv("ALLOCTRACE_PRELOAD");
	char from[4096], to[4096];
	free(malloc(99));
	snprintf(from, sizeof(from), "%s/%d.0", dir == NULL ? "" : strchr(dir, '/'), (int)getpid());
	snprintf(to, sizeof(to), "%s0", from);
	if (rename(from, to) != 0)
		return;
	for (int i = 0; i < 20000; i++)
		free(malloc(99));
	kill(getpid(), SIGKILL);
}

// forks has children by fork and by a system call, each with 1000 blocks of 123 bytes, and 10 blocks of 77 bytes of its own.
static void forks(void)
{
	for (int i = 0; i < 10; i++) {
		free(malloc(77));
		pid_t child = i % 2 == 0 ? fork() : (pid_t)syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
		if (child == 0) {
			for (int j = 0; j < 1000; j++)
				free(malloc(123));
			_exit(0);
		}
		waitpid(child, NULL, 0);
	}
}

// cancelled has a thread that is cancelled at the first place where it may be: not in malloc.
static void *cancelled(void *done)
{
	pthread_cancel(pthread_self());
	for (int i = 0; i < 20000; i++)
		free(malloc(34));
	*(int *)done = 1;
	pthread_testcancel();
	return NULL;
}

static void cancels(void)
{
	pthread_t t;
	int done = 0;
	pthread_create(&t, NULL, cancelled, &done);
	pthread_join(t, NULL);
	if (!done)
		abort();
}

// headless allocates in a thread when the main one has ended.
static void *headless(void *first)
{
	pthread_join(*(pthread_t *)first, NULL);
	for (int i = 0; i < 10000; i++)
		free(malloc(35));
	return NULL;
}

static void heads(void)
{
	static pthread_t first, other;
	first = pthread_self();
	pthread_create(&other, NULL, headless, &first);
	pthread_exit(NULL);
}

static volatile int signals;

static void alarmed(int signal)
{
	struct itimerval soon = {{0, 0}, {0, 20 + signals % 50}};
	(void)signal;
	free(malloc(45));
	signals++;
	setitimer(ITIMER_REAL, &soon, NULL);
}

// interrupted has a signal handler that calls malloc, for which the allocator must be made.
static void interrupted(void)
{
	struct sigaction action = {.sa_handler = alarmed};
	sigaction(SIGALRM, &action, NULL);
	alarmed(0);
	while (signals < 1000)
		free(malloc(24));
	struct itimerval never = {{0, 0}, {0, 0}};
	setitimer(ITIMER_REAL, &never, NULL);
}

// vforks has children of vfork that call malloc, as they should not, before it does so.
static void vforks(void)
{
	for (int i = 0; i < 10; i++) {
		pid_t child = vfork();
		if (child == 0) {
			free(malloc(22));
			_exit(0);
		}
		waitpid(child, NULL, 0);
		free(malloc(23));
	}
}

// plugins loads libraries, one after the other, and has each allocate. The one may be where the other was.
static void plugins(char **paths)
{
	for (; *paths != NULL; paths++) {
		void *library = dlopen(*paths, RTLD_NOW | RTLD_LOCAL), *run = library == NULL ? NULL : dlsym(library, "run");
		if (run == NULL)
			abort();
		(*(void (**)(void))&run)();
		dlclose(library);
	}
}

// pairs says how many nanoseconds a pair of malloc and free takes, which functions make that were called by so many others.
static void pairs(int calls)
{
	enum { PAIRS = 200000 };
	struct timespec began, now;
	if (calls > 0) {
		pairs(calls - 1);
		return;
	}
	clock_gettime(CLOCK_MONOTONIC, &began);
	for (int i = 0; i < PAIRS; i++)
		free(malloc(64));
	clock_gettime(CLOCK_MONOTONIC, &now);
	say("%f\n", ((double)(now.tv_sec - began.tv_sec) * 1e9 + (double)(now.tv_nsec - began.tv_nsec)) / PAIRS);
}

static void deep_pairs(void) { pairs(20); }

int main(int argc, char **argv)
{
	static const struct { const char *name; void (*run)(void); } modes[] = {{"all", all}, {"walk", walk}, {"threads", threads}, {"limited", limited}, {"storm", storm}, {"late", lates}, {"confined", confined}, {"away", away}, {"fork", forks}, {"vfork", vforks}, {"cancel", cancels}, {"headless", heads}, {"interrupt", interrupted}, {"pairs", deep_pairs}};
	const char *mode = argc > 1 ? argv[1] : "";
	setvbuf(stdout, buffer, _IOFBF, sizeof(buffer));
	for (size_t i = 0; i < sizeof(modes) / sizeof(modes[0]); i++)
		if (strcmp(mode, modes[i].name) == 0)
			modes[i].run();
	if (strcmp(mode, "kill") == 0) { // 10000 blocks of 55 bytes
		for (int i = 0; i < 10000; i++)
			if (malloc(55) == NULL)
				return 1;
		kill(getpid(), SIGKILL);
	}
	if (strcmp(mode, "close") == 0) { // closes all files, and opens others in their place
		for (int fd = 3; fd < 256; fd++)
			close(fd);
		for (int i = 0; i < 20; i++)
			open("/dev/null", O_RDWR);
		for (int i = 0; i < 20000; i++)
			free(malloc(66));
	}
	if (strcmp(mode, "plugins") == 0)
		plugins(argv + 2);
	if (strcmp(mode, "exec") == 0) // executes the mode of the next argument
		execv("/proc/self/exe", argv + 1);
	fflush(stdout);
	return 0;
}
