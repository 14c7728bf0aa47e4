//go:build (unix || windows) && !race

package blockalloc

var defaultAllocator Allocator = &Pool{}
