/* main LIBRARY: loads it, counts from 4 threads of C and on goroutines at once, and prints the ways. */
#include <dlfcn.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { THREADS = 4, BLOCKS = 5000 };

static char *(*count)(int);
static char *(*go_do)(int);
static char *(*check)(long long);

static void *thread(void *unused) {
	(void)unused;
	return count(BLOCKS);
}

static void *symbol(void *library, const char *name) {
	void *found = dlsym(library, name);
	if (!found) {
		fprintf(stderr, "%s\n", dlerror());
		exit(1);
	}
	return found;
}

int main(int argc, char **argv) {
	void *library = argc == 2 ? dlopen(argv[1], RTLD_NOW) : NULL;
	if (!library) {
		fprintf(stderr, "main LIBRARY: %s\n", argc == 2 ? dlerror() : "give one library");
		return 1;
	}
	count = (char *(*)(int))symbol(library, "AlloctraceCount");
	go_do = (char *(*)(int))symbol(library, "AlloctraceDo");
	check = (char *(*)(long long))symbol(library, "AlloctraceCheck");

	pthread_t threads[THREADS];
	for (int i = 0; i < THREADS; i++) {
		if (pthread_create(&threads[i], NULL, thread, NULL) != 0) {
			perror("pthread_create");
			return 1;
		}
	}
	char *wrong = go_do(BLOCKS);
	for (int i = 0; i < THREADS; i++) {
		void *said;
		pthread_join(threads[i], &said);
		if (said) {
			wrong = said;
		}
	}
	if (wrong) {
		fprintf(stderr, "%s\n", wrong);
		return 1;
	}
	puts(check((THREADS + 4LL) * BLOCKS));
	return 0;
}
