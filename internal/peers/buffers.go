package peers

import (
	"math/bits"
	"sync"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// A bufferSource hands out buffers, as an RPC library has them.
type bufferSource interface {
	get(size int) buffer
	put(buffer)
}

type buffer struct {
	mem   []byte
	block blockalloc.Block
}

// buffers makes one of each kind, new, so that none has memory yet.
var buffers = []func() (string, bufferSource){
	func() (string, bufferSource) { return "pool", blockBuffers{new(blockalloc.Pool)} },
	func() (string, bufferSource) { return "lists", new(bufferLists) },
	func() (string, bufferSource) { return "sync.Pool", new(bufferPools) },
}

// blockBuffers are blocks of an allocator.
type blockBuffers struct{ mem blockalloc.Allocator }

func (s blockBuffers) get(size int) buffer {
	b, err := s.mem.Allocate(blockalloc.Layout{Size: uintptr(size), Align: 8})
	if err != nil {
		panic(err)
	}
	return buffer{b.Bytes(), b}
}

func (s blockBuffers) put(b buffer) {
	if err := s.mem.Free(b.block); err != nil {
		panic(err)
	}
}

// bufferLists has one free list a power of two, and gives nothing back.
type bufferLists struct {
	mu   sync.Mutex
	free [bits.UintSize][][]byte
}

func (s *bufferLists) get(size int) buffer {
	class := bits.Len(uint(size - 1))
	s.mu.Lock()
	defer s.mu.Unlock()
	list := s.free[class]
	if len(list) == 0 {
		return buffer{mem: make([]byte, size, 1<<class)}
	}
	last := len(list) - 1
	s.free[class] = list[:last]
	return buffer{mem: list[last][:size]}
}

func (s *bufferLists) put(b buffer) {
	class := bits.Len(uint(cap(b.mem) - 1))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.free[class] = append(s.free[class], b.mem)
}

// bufferPools has a sync.Pool a power of two, as gRPC has them for some.
type bufferPools struct{ free [bits.UintSize]sync.Pool }

func (s *bufferPools) get(size int) buffer {
	class := bits.Len(uint(size - 1))
	if mem, ok := s.free[class].Get().(*[]byte); ok {
		return buffer{mem: (*mem)[:size]}
	}
	return buffer{mem: make([]byte, size, 1<<class)}
}

func (s *bufferPools) put(b buffer) { s.free[bits.Len(uint(cap(b.mem)-1))].Put(&b.mem) }
