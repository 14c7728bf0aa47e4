// A library that is loaded for some events. NAME is what allocates.
#include <stdlib.h>

__attribute__((noinline)) static void *NAME(void) { return malloc(31); }

void run(void)
{
	for (int i = 0; i < 3; i++) {
		void *volatile p = NAME();
		free(p);
	}
}
