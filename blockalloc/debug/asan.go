//go:build asan && cgo

package debug

/*
#include <stddef.h>
#include <stdint.h>

void __asan_poison_memory_region(void const volatile *addr, size_t size);
void __asan_unpoison_memory_region(void const volatile *addr, size_t size);

static void poison(uintptr_t addr, size_t size) { __asan_poison_memory_region((void *)addr, size); }
static void unpoison(uintptr_t addr, size_t size) { __asan_unpoison_memory_region((void *)addr, size); }
*/
import "C"

// asanGranule is how many bytes AddressSanitizer keeps a state of together, of
// which it can forbid all, or those from one of them on.
const asanGranule = 8

// poison has AddressSanitizer report accesses to what is not the caller's: what is around
// the block, and once it is freed the block. Of the granules at either end it is the
// block's that has the last byte, so that no two blocks ever set one granule's state: the
// last 7 bytes at most are not forbidden.
func (r *record) poison() {
	r.asan(func(addr, size uintptr) { C.poison(C.uintptr_t(addr), C.size_t(size)) })
}

// unpoison undoes poison, for this package itself, and before memory is somebody else's.
func (r *record) unpoison() {
	r.asan(func(addr, size uintptr) { C.unpoison(C.uintptr_t(addr), C.size_t(size)) })
}

func (r *record) asan(do func(addr, size uintptr)) {
	start, end := r.from.Addr(), (r.from.Addr()+r.from.Size())&^(asanGranule-1)
	between := func(start, end uintptr) {
		if start < end {
			do(start, end-start)
		}
	}
	if r.dead {
		between(start, end)
		return
	}
	between(start, r.block.Addr()&^(asanGranule-1))
	between(r.block.Addr()+r.block.Size(), end)
}
