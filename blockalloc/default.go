package blockalloc

// Default returns the allocator to wrap when nothing else is called for: one
// [Pool] shared by the process, or one [Heap] where there is no memory but the
// Go heap's or where the race detector, which sees no other, is on. Its memory is not
// zeroed. Nobody should close it.
func Default() Allocator { return defaultAllocator }
