package main

import (
	"errors"
	"fmt"
	"math/bits"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// blockSize is the size of an arena's blocks and their alignment, in bytes.
const blockSize = 64 << 10

// maxBlocks is how many blocks a ref can tell apart: 4 GiB.
const maxBlocks = 1 << 16

// Chunks have a power of two of bytes between these, and as alignment.
const (
	minChunk = 16
	maxChunk = 4 << 10
)

// An arena carves chunks of memory from 64 KiB blocks outside the Go heap. All
// chunks of a block have the same size, which stands in the header at the
// block's start. The block is aligned to its size, so that any pointer into a
// chunk leads to the header: mask the low 16 bits away. A chunk needs no header
// of its own, and whoever holds a pointer need not carry anything else.
type arena struct {
	mem    blockalloc.Allocator
	blocks []blockalloc.Block
	open   [32]*header // by log2 of the chunk size: the block that has room, or had
}

// A header is the beginning of a block. It takes the place of the first chunk.
type header struct {
	number uint32 // of the block in its arena
	chunk  uint32 // size of the block's chunks in bytes
	used   uint32 // bytes of the block that are handed out
}

// headerOf finds the header of the block that p points into.
func headerOf(p unsafe.Pointer) *header {
	return (*header)(unsafe.Pointer(uintptr(p) &^ (blockSize - 1)))
}

// A ref stands for a pointer into an arena in half the bytes: the number of the
// block and the offset in it. No chunk has ref 0.
type ref uint32

func refOf(p unsafe.Pointer) ref {
	return ref(headerOf(p).number<<16 | uint32(uintptr(p)&(blockSize-1)))
}

func (a *arena) pointer(r ref) unsafe.Pointer {
	return unsafe.Add(a.blocks[r>>16].Pointer(), r%blockSize)
}

// chunk returns a fresh chunk of size bytes, which may not be zeroed.
func (a *arena) chunk(size uint32) (unsafe.Pointer, error) {
	open := &a.open[bits.TrailingZeros32(size)]
	if *open == nil || (*open).used == blockSize {
		h, err := a.grow(size)
		if err != nil {
			return nil, err
		}
		*open = h
	}
	h := *open
	p := unsafe.Add(unsafe.Pointer(h), h.used)
	h.used += size
	return p, nil
}

func (a *arena) grow(chunk uint32) (*header, error) {
	if len(a.blocks) == maxBlocks {
		return nil, fmt.Errorf("the postings of one part take more than %d blocks of %d bytes: index a smaller folder", maxBlocks, blockSize)
	}
	b, err := a.mem.Allocate(blockalloc.BlockLayout(blockSize))
	if err != nil {
		return nil, err
	}
	h := (*header)(b.Pointer())
	*h = header{number: uint32(len(a.blocks)), chunk: chunk, used: chunk}
	a.blocks = append(a.blocks, b)
	return h, nil
}

// forget loses the first block, as a program with a leak does. It reports whether
// there was one.
func (a *arena) forget() bool {
	if len(a.blocks) == 0 {
		return false
	}
	a.blocks = a.blocks[1:]
	return true
}

// free gives all blocks back through mem.
func (a *arena) free(mem blockalloc.Allocator) error {
	var errs []error
	for _, b := range a.blocks {
		errs = append(errs, mem.Free(b))
	}
	*a = arena{mem: a.mem}
	return errors.Join(errs...)
}
