package blockalloc

// Default returns the allocator to start with: a [Pool] that the process shares. It is
// a [Heap] on platforms that have only the Go heap, and under the race detector, which
// sees no other memory. Its memory is zeroed if [Layout].Zeroed asks for that. Do not close it.
func Default() Allocator { return defaultAllocator }
