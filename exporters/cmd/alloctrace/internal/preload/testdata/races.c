// Threads that call the recorder's functions by other names, so that the thread sanitizer, which has functions of its own for malloc, sees
// what the recorder does: cc -fsanitize=thread -Dmalloc=recorded_malloc …
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

enum { ROUNDS = 1000, SHELF = 32 };

static _Atomic(void *) shelf[SHELF];

static void *work(void *seed)
{
	uint64_t x = (uintptr_t)seed * 0x9e3779b97f4a7c15u + 1;
	for (int i = 0; i < ROUNDS; i++) {
		x ^= x << 13, x ^= x >> 7, x ^= x << 17;
		free(atomic_exchange(&shelf[x % SHELF], realloc(malloc(x >> 8 & 255), x >> 16 & 1023)));
	}
	return NULL;
}

// chain has threads one after the other. They leave their chunks to those of other chains, with which they have nothing else to do then.
static void *chain(void *seed)
{
	for (uintptr_t i = 0; i < 10; i++) {
		pthread_t t;
		pthread_create(&t, NULL, work, (void *)((uintptr_t)seed * 10 + i));
		pthread_join(t, NULL);
	}
	return NULL;
}

int main(void)
{
	pthread_t of[4];
	free(malloc(1)); // opens the file: what others do meanwhile would be lost
	for (uintptr_t i = 0; i < 4; i++)
		pthread_create(&of[i], NULL, chain, (void *)i);
	for (int i = 0; i < 4; i++)
		pthread_join(of[i], NULL);
	puts("done");
	return 0;
}
