// Package arrowmem gives arrow-go memory of a blockalloc.Allocator, so that Arrow's buffers are counted, traced
// and found when they leak:
//
//	small, err := blockalloc.NewSlab(blockalloc.Default(), 64<<10)
//	…
//	mem := arrowmem.New(alloctrace.Wrap(small, alloctrace.WithName("arrow")))
//	builder := array.NewInt64Builder(mem)
//
// It imports no package of Arrow's: an [Allocator] is a memory.Allocator of arrow-go by its methods. It stands beside
// the allocators, where one looks for it, and adds nothing to what a program is made of.
//
// # Small buffers
//
// The Slab is for small buffers, such as validity bitmaps, where [blockalloc.Default] grants a page at least: without
// it, a program with 20,000 arrays of ten numbers has three times the resident memory and takes four times as long. New does
// not make one: it would stand between a Proxy and the buffers, which would then count blocks of 64 KiB and not
// buffers. Larger buffers go through a Slab to its parent, and cost the same without it.
//
// # Leaks
//
// A report of leaks leaves out the calls of this package, and those of Arrow's own if it is told to:
//
//	alloctest.New(t, alloctest.WithSkip("github.com/apache/arrow-go/..."))
//
// A heapprofile.Profile and tracer.Lifetimes have the same as Skip in their options. Then a buffer that was never
// released is shown with the line of the program that made Arrow allocate it.
package arrowmem

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/shard"
)

// align is the alignment of buffers, as Arrow's format recommends it.
const align = 64

// An Allocator is Arrow's memory.Allocator. Its memory is zeroed and aligned to 64 bytes, as Arrow relies on; it is cleared
// only where it has been used before. Several goroutines may use it at once if they may use the allocator that it
// was made of.
//
// Slices have the capacity that was asked for. A slice is freed or reallocated by its address and its capacity: any that
// begins where the buffer does and has all of its capacity stands for it.
//
// Arrow's interface has no error results: what fails panics with an error. It wraps that of the allocator, such as
// [blockalloc.ErrOutOfMemory] or [blockalloc.ErrLimit] if Allocate and Reallocate get no memory. Arrow's Parquet reader,
// IPC writer and array.Concatenate recover it and return it wrapped. Its compute functions do not, in goroutines of their
// own: there it ends the program, as a Go heap that is full does.
//
// A slice that no live buffer has is [blockalloc.ErrDoubleFree] or [blockalloc.ErrNotOwned], and nothing else happens. It is
// not noticed if another buffer of the same size has taken its place meanwhile.
//
// An operation costs what it costs the allocator, with a look-up by [blockalloc.Finder] for what is freed or
// reallocated, and an atomic addition. It allocates nothing on the Go heap. An Allocator takes 600 bytes: a region or
// a part of a program may have its own.
type Allocator struct {
	mem  blockalloc.Allocator
	find blockalloc.Finder
	live [shards]requested
}

// shards is how many words the live bytes are spread over.
const shards = 8

// requested is a share of the live bytes, in a cache line of its own. It is below zero if goroutines freed more
// than they allocated.
type requested struct {
	atomic.Int64
	_ [56]byte
}

// New returns an Allocator that takes memory from mem. It panics if mem is nil, or is no [blockalloc.Finder]: all
// allocators of this module are.
func New(mem blockalloc.Allocator) *Allocator {
	if mem == nil {
		panic("arrowmem: New(nil): pass an allocator, such as blockalloc.Default()")
	}
	find, ok := blockalloc.FinderOf(mem)
	if !ok {
		panic(fmt.Sprintf("arrowmem: New(%T): it, or an allocator that it wraps, is no blockalloc.Finder, and cannot tell the block of a slice: give it a Find method", mem))
	}
	return &Allocator{mem: mem, find: find}
}

// Allocate returns size zeroed bytes. If size is zero, it returns an empty slice, which need not be freed.
func (a *Allocator) Allocate(size int) []byte {
	if size == 0 {
		return []byte{}
	}
	if size < 0 {
		panic(negative("Allocate", size))
	}
	b, err := a.mem.Allocate(blockalloc.Layout{Size: uintptr(size), Align: align, Zeroed: true})
	if err != nil {
		panic(fmt.Errorf("arrowmem: Allocate(%d): %w", size, err))
	}
	a.add(size)
	return b.Bytes()[:size:size]
}

// Reallocate returns a slice of size bytes that begins with those of b. If b has the capacity, that is b's own memory,
// with what was in it beyond b's length, as with Arrow's own allocators. Otherwise b is freed, and the slice is zeroed
// beyond b's length. Size zero frees b. After a panic, b is still live.
func (a *Allocator) Reallocate(size int, b []byte) []byte {
	switch {
	case size < 0:
		panic(negative("Reallocate", size))
	case cap(b) == 0:
		return a.Allocate(size)
	case size == 0:
		a.Free(b)
		return []byte{}
	case size <= cap(b):
		return b[:size]
	}
	old, err := a.block(b)
	if err == nil {
		var n blockalloc.Block
		if n, err = a.mem.Reallocate(old, uintptr(size)); err == nil {
			a.add(size - cap(b))
			grown := n.Bytes()[:size:size]
			clear(grown[len(b):cap(b)])
			return grown
		}
	}
	panic(fmt.Errorf("arrowmem: Reallocate(%d) of %d bytes at %p: %w", size, cap(b), unsafe.SliceData(b), err))
}

// Free gives the memory of b back. Freeing an empty slice without capacity does nothing.
func (a *Allocator) Free(b []byte) {
	if cap(b) == 0 {
		return
	}
	block, err := a.block(b)
	if err == nil {
		if err = a.mem.Free(block); err == nil {
			a.add(-cap(b))
			return
		}
	}
	panic(fmt.Errorf("arrowmem: Free of %d bytes at %p: %w", cap(b), unsafe.SliceData(b), err))
}

// AssertSize fails the test t unless size bytes are live of what was asked of this Allocator: without the slack that was
// granted, and with what Reallocate made a slice shorter by, which stays its buffer's.
func (a *Allocator) AssertSize(t interface {
	Errorf(format string, args ...any)
	Helper()
}, size int) {
	t.Helper()
	var live int64
	for i := range a.live {
		live += a.live[i].Load()
	}
	if live != int64(size) {
		t.Errorf("arrowmem: %d bytes are live, want %d", live, size)
	}
}

// block returns the live block of b. If there is none, it returns a block that the allocator refuses, for that to say
// why: a debug.Allocator knows who freed it, and a Proxy counts the failure.
func (a *Allocator) block(b []byte) (blockalloc.Block, error) {
	p := unsafe.Pointer(unsafe.SliceData(b))
	live, ok := a.find.Find(p)
	switch {
	case ok && live.Pointer() != p:
		return live, fmt.Errorf("%w: it begins %d bytes into a buffer of %d: pass the slice that was allocated",
			blockalloc.ErrNotOwned, uintptr(p)-live.Addr(), live.Requested())
	case ok && live.Requested() < uintptr(cap(b)):
		return live, fmt.Errorf("%w: a buffer of %d bytes is at its address now: free a slice once", blockalloc.ErrDoubleFree, live.Requested())
	case ok && live.Requested() > uintptr(cap(b)):
		return live, fmt.Errorf("%w: the buffer at its address has %d bytes: pass a slice with its whole capacity, and free it once",
			blockalloc.ErrNotOwned, live.Requested())
	case ok:
		return live, nil
	case uintptr(p)%align != 0:
		return live, fmt.Errorf("%w: it is not aligned to %d: pass a slice of this Allocator", blockalloc.ErrNotOwned, align)
	}
	return blockalloc.FromRaw(p, blockalloc.Layout{Size: uintptr(cap(b)), Align: align, Zeroed: true})
}

// add adds to the live bytes.
func (a *Allocator) add(size int) {
	_, mine := shard.All.Pick()
	a.live[mine%shards].Add(int64(size))
}

func negative(call string, size int) error {
	return fmt.Errorf("arrowmem: %s(%d): %w: the size is negative", call, size, blockalloc.ErrBadLayout)
}
