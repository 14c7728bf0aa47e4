// Package manualmem is manual memory by purpose: a storage engine's C calloc and free, where each
// purpose, such as the block cache or the memtables, has counts of its own.
//
//	mem := manualmem.New(alloctrace.Wrap(blockalloc.Default()), "cache", "memtable")
//	page := mem.Allocate(cache, 32<<10)
//	mem.Free(cache, page, 32<<10)
package manualmem

import (
	"fmt"
	"unsafe"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// align is C's: that of the largest scalar type.
const align = 16

// A Memory hands out zeroed memory as calloc does. Several goroutines may use it at once if they may use
// the Proxy's allocator. It keeps nothing of a block: the allocator finds it by its address.
type Memory struct {
	find     blockalloc.Finder
	purposes []*alloctrace.Proxy
}

// New returns a Memory that has a child of mem for each purpose. Calls name the purpose by its index. It panics if the
// allocator of mem is no Finder.
func New(mem *alloctrace.Proxy, purposes ...string) *Memory {
	find, ok := blockalloc.FinderOf(mem)
	if !ok {
		panic(fmt.Sprintf("manualmem: New: %T is no Finder: pass a Proxy around one that is, such as blockalloc.Default()", mem.Unwrap()))
	}
	m := &Memory{find: find}
	for _, name := range purposes {
		m.purposes = append(m.purposes, mem.Child(name))
	}
	return m
}

// Allocate returns size zeroed bytes, nil if size is 0. Without memory it panics with the allocator's error.
func (m *Memory) Allocate(purpose int, size uintptr) unsafe.Pointer {
	b, err := m.purposes[purpose].Allocate(blockalloc.Layout{Size: size, Align: align, Zeroed: true})
	if err != nil {
		panic(fmt.Errorf("manualmem: Allocate(%d) for %s: %w", size, m.purposes[purpose].Name(), err))
	}
	return b.Pointer()
}

// Free gives back the size bytes at p, for the purpose for which they were allocated. It panics if
// no live block of that size begins there.
func (m *Memory) Free(purpose int, p unsafe.Pointer, size uintptr) {
	if size == 0 {
		return
	}
	b, ok := m.find.Find(p)
	switch {
	case !ok || b.Pointer() != p:
		panic(fmt.Errorf("manualmem: Free of %d bytes at %p: %w", size, p, blockalloc.ErrNotOwned))
	case b.Requested() != size:
		panic(fmt.Errorf("manualmem: Free of %d bytes at %p, where %d were allocated: %w", size, p, b.Requested(), blockalloc.ErrNotOwned))
	}
	if err := m.purposes[purpose].Free(b); err != nil {
		panic(fmt.Errorf("manualmem: Free: %w", err))
	}
}
