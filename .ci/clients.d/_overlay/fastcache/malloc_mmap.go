package fastcache

import (
	"fmt"
	"unsafe"

	"alloctrace.example/clients/memory"
	"github.com/alloctrace/alloctrace/blockalloc"
)

// chunkLayout is that of all chunks: their size is a power of two, and what is granted is what was asked for.
var chunkLayout = blockalloc.BlockLayout(chunkSize)

// getChunk returns a chunk, instead of one of a mapping that is never given back.
func getChunk() []byte {
	b, err := memory.Default().Allocate(chunkLayout)
	if err != nil {
		panic(fmt.Errorf("fastcache: chunk: %w", err))
	}
	return b.Bytes()
}

// putChunk frees a chunk.
func putChunk(chunk []byte) {
	if chunk == nil {
		return
	}
	b, err := blockalloc.FromRaw(unsafe.Pointer(unsafe.SliceData(chunk)), chunkLayout)
	if err == nil {
		err = memory.Default().Free(b)
	}
	if err != nil {
		panic(fmt.Errorf("fastcache: chunk: %w", err))
	}
}
