//go:build !(unix || windows) || race

package memlimit

const poolOnGoHeap = true // see pool_pages_heap.go of blockalloc
