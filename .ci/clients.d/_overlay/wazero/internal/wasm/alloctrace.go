package wasm

import (
	"alloctrace.example/clients/memory"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/alloctrace/alloctrace/blockalloc/wazeromem"
)

// defaultAllocator is for modules that are instantiated without an allocator in the context. On memory that reports misuse, which
// would move, memory of at most 1 GiB is allocated whole, for it may be shared.
var defaultAllocator experimental.MemoryAllocator = experimental.MemoryAllocatorFunc(func(capacity, max uint64) experimental.LinearMemory {
	if max <= 1<<30 {
		capacity = max
	}
	return ours.Allocate(capacity, max)
})

var ours = wazeromem.New(memory.Wrap(wazeromem.Default()), wazeromem.Options{})
