// The file that preload.c writes, and what threads do to write to it.
//
// It is named PID.N, and has the byte order and word size of the machine. It is a header of 64 KiB, struct header, then chunks of
// 256 KiB, each of which begins with a struct chunk. Those of kind 0 were given up. A chunk of kind CHUNK_EVENTS has records,
// struct record and so many return addresses, up to the first whose seq is 0, or the end. One of kind CHUNK_MAPS has lines of
// /proc/self/maps, those of executable files, after lines of an @ and the seq of the event before.
//
// Threads write into mappings of the file, so that a program that is killed loses nothing but what it was just writing: the kernel has
// the rest. It may call _exit, or crash. At exit nothing is left but to note the number of events and the memory.
//
// # The order
//
// seq counts the events of a process from 1. It is the order of the recording: nobody sees an address live twice. A release takes
// its number before the inner free, an acquisition after the inner malloc. If the memory of the one becomes that of the other,
// in whichever threads, the allocator has them happen one after the other, by its locks or atomics. Both are increments of
// one word, whose order of modification agrees with what happens before: so relaxed increments are enough.
//
// A number that no record has is an event that was lost: the disk or the limit was full, a signal handler called malloc while
// a record was written, another thread was making the file, or the process ended. What a signal handler does while the inner malloc
// runs has no number: it looks like what that does for itself.
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include <unwind.h>

#ifndef MADV_WIPEONFORK // Linux 4.14
#define MADV_WIPEONFORK 18
#endif

#define HEADER_SIZE (64 << 10) // no page is larger: chunks are mapped
#define CHUNK_SIZE (256 << 10)
#define MAX_FRAMES 64
#define SPARES 64
#define RETRY_AFTER 4096 // events, after there was no room for a chunk

struct header {
	char magic[8];	// "ALTRPRE1"
	uint32_t order; // 0x01020304
	uint32_t header_size, chunk_size;
	uint32_t pid, parent;
	uint32_t frames; // at most, of a stack
	uint32_t align;	 // of malloc
	uint32_t page_size;
	uint64_t began; // by the clock of records, and by that of the calendar: nanoseconds
	uint64_t began_realtime;
	char program[2048]; // its path
	char name[16];	    // as it is executed: that of a link to it, or of a script
	_Atomic uint64_t events; // so many there have been, also those that are not there; 0 if it did not call exit and none was lost
	uint64_t resident;	 // bytes that were in memory at most, 0 if it did not call exit
};

enum { CHUNK_EVENTS = 1, CHUNK_MAPS = 2 };

struct chunk {
	uint32_t kind;
	uint32_t used; // bytes, of CHUNK_MAPS
	uint64_t seq;  // of a spare one: that of its last record
};

// As in package alloctrace.
enum { ALLOCATED = 1, REALLOCATED, REALLOCATING, FREEING, ALLOCATE_FAILED, REALLOCATE_FAILED };

struct record {
	_Atomic uint64_t seq; // written last, so that a record that has one is whole
	uint64_t time;	      // CLOCK_MONOTONIC, nanoseconds
	uint64_t addr;	      // of REALLOCATE_FAILED: of the block that stays
	uint64_t size;	      // that was asked for; of releases 0
	uint64_t usable;      // bytes that the block has, or 0
	uint32_t thread;
	uint8_t kind;
	uint8_t align; // its binary logarithm
	uint8_t frames;
	uint8_t unused;
	uint64_t callers[]; // the innermost first
};

// What package preload reads, on any machine.
_Static_assert(offsetof(struct header, began) == 40 && offsetof(struct header, events) == 2120 && sizeof(struct chunk) == 16 && sizeof(struct record) == 48, "layout");

// What is set once, before anything is recorded.
static struct {
	_Atomic int functions; // UNKNOWN, BEGUN, READY: then inner is known, and walks and key are
	_Atomic int options;   // whether what follows them is known
	int walks;	       // stacks
	pthread_key_t key;
	uint64_t most; // bytes of a file
	unsigned frames;
	pid_t parent;
	char directory[PATH_MAX];
} set;
enum { UNKNOWN, BEGUN, READY };

// What a process has. The kernel clears the page in the child of a fork, for which this one's file is not.
struct process {
	_Atomic int state; // UNKNOWN, BEGUN, READY (records), OFF. READY is stored after all that follows: who has loaded it sees that
	_Atomic uint64_t seq;
	_Atomic uint64_t end; // of the file
	_Atomic int mapping;  // somebody reads /proc/self/maps
	uint64_t mapped;      // the hash of what it had; used by who has mapping
	struct chunk *maps;   // where that was written, NULL if it was not; used by who has mapping
	uint64_t began;	      // which tells it from its parent
	pid_t pid;	      // if it has executed its program: a child of vfork has another, and all this too
	struct header *header; // stays mapped: a process that cannot open its file any more says so here
	char path[PATH_MAX + 32];
	// Chunks that threads had not filled when they ended. Who takes one out by an exchange that acquires is the only one who has it,
	// and sees what was written to it before it was put there by one that releases.
	_Atomic(struct chunk *) spare[SPARES];
};
enum { OFF = READY + 1 };
static struct process *process;

static __thread struct {
	struct chunk *chunk;	// of the process that began then
	uint64_t began;
	size_t at;		// the offset of its next record
	uint64_t last;		// the number of the one before
	pid_t id;
	unsigned skip;		// so many events are lost before it asks for a chunk again
	unsigned depth;		// calls of inner functions, which may call others of them
	const void *acquired;	// by the last event
	int left;		// leave was called: nobody will call it again
	volatile int recording; // a record is being written; a signal handler may call malloc meanwhile
} self __attribute__((tls_model("initial-exec")));

static uint64_t nanoseconds(clockid_t clock)
{
	struct timespec t;
	clock_gettime(clock, &t);
	return (uint64_t)t.tv_sec * 1000000000 + (uint64_t)t.tv_nsec;
}

static char *append_number(char *to, uint64_t n)
{
	char digits[20];
	int many = 0;
	do
		digits[many++] = (char)('0' + n % 10);
	while ((n /= 10) > 0);
	while (many > 0)
		*to++ = digits[--many];
	return to;
}

// take_number reads a number and the space after it.
static uint64_t take_number(const char **from)
{
	uint64_t n = 0;
	for (; **from >= '0' && **from <= '9'; ++*from)
		n = n * 10 + (uint64_t)(**from - '0');
	if (**from == ' ')
		++*from;
	return n;
}

// file_limit returns how large a file may be. Who writes beyond that gets a signal that ends the program.
static uint64_t file_limit(void)
{
	struct rlimit limit;
	return getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY ? limit.rlim_cur : UINT64_MAX;
}

// uncancelled has the thread not be cancelled: open, read and close are where it may be, which malloc is not. It returns what
// pthread_setcancelstate takes afterwards.
static int uncancelled(void)
{
	int state = PTHREAD_CANCEL_ENABLE;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	return state;
}

// open_file makes the file of the process, if it is to be recorded. A child of vfork leaves that to its parent.
static void open_file(struct process *p)
{
	int unknown = UNKNOWN;
	if ((p->pid != 0 && p->pid != getpid()) || !atomic_load_explicit(&set.options, memory_order_acquire) || !atomic_compare_exchange_strong_explicit(&p->state, &unknown, BEGUN, memory_order_acquire, memory_order_relaxed))
		return;
	struct header h;
	int fd = -1, cancelling = uncancelled();
	memset(&h, 0, sizeof(h));
	memcpy(h.magic, "ALTRPRE1", sizeof(h.magic));
	h.order = 0x01020304;
	h.header_size = HEADER_SIZE;
	h.chunk_size = CHUNK_SIZE;
	h.pid = (uint32_t)getpid();
	h.parent = (uint32_t)getppid();
	h.frames = set.frames;
	h.align = _Alignof(max_align_t);
	h.page_size = (uint32_t)sysconf(_SC_PAGESIZE);
	h.began = p->began = nanoseconds(CLOCK_MONOTONIC);
	h.began_realtime = nanoseconds(CLOCK_REALTIME);
	if (readlink("/proc/thread-self/exe", h.program, sizeof(h.program) - 1) < 0)
		h.program[0] = 0;
	prctl(PR_GET_NAME, h.name, 0, 0, 0);
	for (unsigned n = 0; set.parent == 0 || getppid() == set.parent; n++) { // each program that the process executes has one
		char *to = stpcpy(p->path, set.directory);
		*to++ = '/';
		to = append_number(to, h.pid);
		*to++ = '.';
		*append_number(to, n) = 0;
		fd = open(p->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd >= 0 || errno != EEXIST)
			break;
	}
	p->header = MAP_FAILED;
	if (fd >= 0 && file_limit() >= HEADER_SIZE && pwrite(fd, &h, sizeof(h), 0) == (ssize_t)sizeof(h) && ftruncate(fd, HEADER_SIZE) == 0)
		p->header = mmap(NULL, sizeof(h), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd >= 0)
		close(fd);
	if (fd >= 0 && p->header == MAP_FAILED)
		unlink(p->path);
	pthread_setcancelstate(cancelling, NULL);
	atomic_store_explicit(&p->end, HEADER_SIZE, memory_order_relaxed);
	atomic_store_explicit(&p->state, p->header != MAP_FAILED ? READY : OFF, memory_order_release);
}

// allocate has the file system keep room for a chunk: a mapping of a file for which the disk has no room ends the program.
static int allocate(int fd, off_t offset)
{
	static const char zero[16 << 10];
	int failed;
	while ((failed = fallocate(fd, 0, offset, CHUNK_SIZE)) != 0 && errno == EINTR)
		;
	if (!failed)
		return 1;
	if (errno != EOPNOTSUPP && errno != ENOSYS)
		return 0;
	for (off_t end = offset + CHUNK_SIZE; offset < end; offset += (off_t)sizeof(zero))
		if (pwrite(fd, zero, sizeof(zero), offset) != (ssize_t)sizeof(zero))
			return 0;
	return 1;
}

// new_chunk returns a chunk of zeros at the end of the file, or NULL if there is no room.
static struct chunk *new_chunk(struct process *p)
{
	int fd = open(p->path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return NULL;
	uint64_t offset = atomic_load_explicit(&p->end, memory_order_relaxed), most = file_limit();
	if (set.most > 0 && set.most < most)
		most = set.most;
	int room;
	do
		room = offset + CHUNK_SIZE <= most;
	while (room && !atomic_compare_exchange_weak_explicit(&p->end, &offset, offset + CHUNK_SIZE, memory_order_relaxed, memory_order_relaxed));
	void *chunk = MAP_FAILED;
	if (room && allocate(fd, (off_t)offset))
		chunk = mmap(NULL, CHUNK_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_POPULATE, fd, (off_t)offset);
	close(fd);
	return chunk == MAP_FAILED ? NULL : chunk;
}

// The main thread may have ended before others, and /proc/self is that thread: /proc/thread-self still has what is the process's.

// copy_maps reads those lines of /proc/self/maps that are of executable files. It returns their hash and adds up their bytes. Where to is
// not NULL, it copies as many there as it has room for.
static uint64_t copy_maps(char *to, size_t room, size_t *bytes)
{
	static char buffer[PATH_MAX + 256]; // a line is never longer. Used by who has process->mapping
	size_t have = 0;
	uint64_t hash = 14695981039346656037u; // FNV-1a
	int fd = open("/proc/thread-self/maps", O_RDONLY | O_CLOEXEC);
	for (ssize_t n; fd >= 0 && (n = read(fd, buffer + have, sizeof(buffer) - have)) > 0;) {
		size_t from = 0;
		have += (size_t)n;
		for (char *end; (end = memchr(buffer + from, '\n', have - from)) != NULL;) {
			char *line = buffer + from, *perms = memchr(line, ' ', (size_t)(end - line));
			size_t length = (size_t)(end + 1 - line);
			from += length;
			if (perms == NULL || end - perms < 5 || perms[3] != 'x' || memchr(line, '/', length) == NULL)
				continue;
			for (size_t i = 0; i < length; i++)
				hash = (hash ^ (unsigned char)line[i]) * 1099511628211u;
			if (to != NULL && room - *bytes < length)
				continue;
			if (to != NULL)
				memcpy(to + *bytes, line, length);
			*bytes += length;
		}
		have -= from;
		memmove(buffer, buffer + from, have);
	}
	if (fd >= 0)
		close(fd);
	return hash;
}

// write_maps writes where files are mapped, unless that was written already.
static void write_maps(struct process *p)
{
	enum { LINE = 32 }; // has room for one that begins with @
	if (set.frames == 0 || atomic_exchange_explicit(&p->mapping, 1, memory_order_acquire))
		return;
	size_t bytes = 0, room = p->maps == NULL ? 0 : CHUNK_SIZE - sizeof(struct chunk) - p->maps->used;
	uint64_t hash = copy_maps(NULL, 0, &bytes);
	if (hash != p->mapped && bytes + LINE > room) {
		if (p->maps != NULL)
			munmap(p->maps, CHUNK_SIZE);
		if ((p->maps = new_chunk(p)) != NULL)
			p->maps->kind = CHUNK_MAPS;
		room = CHUNK_SIZE - sizeof(struct chunk);
	}
	if (hash != p->mapped && p->maps != NULL) {
		char *from = (char *)(p->maps + 1) + p->maps->used, *to = from;
		*to++ = '@';
		to = append_number(to, atomic_load_explicit(&p->seq, memory_order_relaxed));
		*to++ = '\n';
		bytes = 0;
		copy_maps(to, room - LINE, &bytes);
		p->maps->used += (uint32_t)((size_t)(to - from) + bytes); // now they are there
		p->mapped = hash;
	}
	atomic_store_explicit(&p->mapping, 0, memory_order_release);
}

// write_events writes how many events there have been. Of threads that do so at once the one with a few less may be the last.
static void write_events(struct process *p)
{
	atomic_store_explicit(&p->header->events, atomic_load_explicit(&p->seq, memory_order_relaxed), memory_order_relaxed);
}

// put_back gives a chunk that is not full to others.
static void put_back(struct process *p, struct chunk *c)
{
	for (int i = 0; i < SPARES; i++) {
		struct chunk *none = NULL;
		if (atomic_compare_exchange_strong_explicit(&p->spare[i], &none, c, memory_order_release, memory_order_relaxed))
			return;
	}
	munmap(c, CHUNK_SIZE);
}

// enter gives the thread a chunk with room for size bytes of the event seq, which is later than those of the chunk. It returns whether
// there is one.
static int enter(struct process *p, size_t size, uint64_t seq)
{
	if (self.began != p->began) { // the thread is new, or that of the parent of this process
		self.began = p->began;
		self.id = (pid_t)syscall(SYS_gettid);
		self.chunk = NULL;
		self.skip = 0;
	}
	if (self.chunk != NULL && CHUNK_SIZE - self.at >= size)
		return 1;
	if (self.skip > 0) {
		self.skip--;
		return 0;
	}
	if (self.chunk != NULL)
		munmap(self.chunk, CHUNK_SIZE);
	self.chunk = NULL;
	for (int i = 0; i < SPARES && self.chunk == NULL; i++) {
		if (atomic_load_explicit(&p->spare[i], memory_order_relaxed) == NULL)
			continue;
		struct chunk *c = atomic_exchange_explicit(&p->spare[i], NULL, memory_order_acquire);
		if (c == NULL)
			continue;
		if (c->seq > seq) // the number is older than the chunk's last, by some moments
			put_back(p, c);
		else if (CHUNK_SIZE - (self.at = c->used) >= size)
			self.chunk = c;
		else
			munmap(c, CHUNK_SIZE);
	}
	if (self.chunk == NULL) {
		int cancelling = uncancelled();
		write_maps(p);
		self.chunk = new_chunk(p);
		pthread_setcancelstate(cancelling, NULL);
		if (self.chunk == NULL) {
			self.skip = RETRY_AFTER;
			return 0;
		}
		self.chunk->kind = CHUNK_EVENTS;
		self.at = sizeof(struct chunk);
	}
	if (!self.left)
		pthread_setspecific(set.key, self.chunk); // so that leave is called
	return 1;
}

// give_back gives the thread's chunk to others.
static void give_back(struct process *p)
{
	struct chunk *c = self.chunk;
	self.chunk = NULL;
	c->used = (uint32_t)self.at;
	c->seq = self.last;
	put_back(p, c);
}

// leave is called when a thread ends. The C library frees what is the thread's after that: then each event gives the chunk back.
static void leave(void *unused)
{
	(void)unused;
	struct process *p = process;
	self.left = 1;
	if (self.chunk == NULL || self.began != p->began || self.recording)
		return;
	self.recording = 1;
	atomic_signal_fence(memory_order_seq_cst);
	give_back(p);
	atomic_signal_fence(memory_order_seq_cst);
	self.recording = 0;
}

struct walk {
	uintptr_t caller;
	unsigned found, most;
	uint64_t *callers;
};

static _Unwind_Reason_Code step(struct _Unwind_Context *context, void *argument)
{
	struct walk *w = argument;
	uintptr_t ip = _Unwind_GetIP(context);
	if (ip == 0 || w->found == w->most)
		return _URC_END_OF_STACK;
	if (w->found > 0 || ip == w->caller) // what is inside of this file is left out
		w->callers[w->found++] = ip;
	return _URC_NO_REASON;
}

// record writes an event of the process.
static void record(struct process *p, int kind, const void *addr, size_t size, size_t usable, size_t align, void *caller)
{
	int interrupts = self.recording; // this is a signal handler's event, whose number is later than that of the record
	self.recording = 1;
	atomic_signal_fence(memory_order_seq_cst);
	uint64_t seq = atomic_fetch_add_explicit(&p->seq, 1, memory_order_relaxed) + 1;
	if (interrupts)
		return;
	uint64_t callers[MAX_FRAMES];
	struct walk w = {(uintptr_t)caller, 0, kind == ALLOCATED || kind == REALLOCATED || kind == ALLOCATE_FAILED || kind == REALLOCATE_FAILED ? set.frames : 0, callers};
	if (w.most > 1 && set.walks)
		_Unwind_Backtrace(step, &w);
	if (w.most > 0 && w.found == 0)
		callers[w.found++] = (uintptr_t)caller;
	size_t bytes = sizeof(struct record) + w.found * sizeof(uint64_t);
	if (enter(p, bytes, seq)) {
		struct record *r = (struct record *)((char *)self.chunk + self.at);
		self.at += bytes;
		self.last = seq;
		r->time = nanoseconds(CLOCK_MONOTONIC);
		r->addr = (uintptr_t)addr;
		r->size = size;
		r->usable = usable;
		r->thread = (uint32_t)self.id;
		r->kind = (uint8_t)kind;
		r->align = (uint8_t)__builtin_ctzll(align);
		r->frames = (uint8_t)w.found;
		memcpy(r->callers, callers, w.found * sizeof(uint64_t));
		atomic_store_explicit(&r->seq, seq, memory_order_release);
		if (self.left)
			give_back(p);
	} else
		write_events(p);
	atomic_signal_fence(memory_order_seq_cst);
	self.recording = 0;
}

// max_resident returns how many bytes of the process have been in memory at most, 0 if that is not known. getrusage would have those of
// the program before, too, which has executed this one.
static uint64_t max_resident(void)
{
	char status[4096];
	int fd = open("/proc/thread-self/status", O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, status, sizeof(status) - 1);
	if (fd >= 0)
		close(fd);
	status[n < 0 ? 0 : n] = 0;
	const char *at = strstr(status, "VmHWM:");
	if (at == NULL)
		return 0;
	for (at += 6; *at == ' ' || *at == '\t'; at++)
		;
	return take_number(&at) << 10;
}
