package blockalloc

// Default returns the allocator to wrap when nothing else is called for: one
// [System] shared by the process, or one [Heap] where there is no System or
// where the race detector, which sees only the Go heap, is on.
func Default() Allocator { return defaultAllocator }
