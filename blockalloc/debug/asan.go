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

// asanGranule is how many bytes share one state of AddressSanitizer, which can forbid
// all of them, or those from one on.
const asanGranule = 8

// poison makes AddressSanitizer report accesses to the surroundings of the block, and
// once it is freed to the block. A granule at either end belongs to the block that has
// its last byte, so that no two blocks set one granule's state. So at most 7 bytes at
// the end stay accessible.
func (r *record) poison() {
	r.asan(func(addr, size uintptr) { C.poison(C.uintptr_t(addr), C.size_t(size)) })
}

// unpoison undoes poison, for accesses of this package and before the memory is given
// back.
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
