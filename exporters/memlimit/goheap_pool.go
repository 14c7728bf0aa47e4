//go:build (unix || windows) && !race

package memlimit

const poolOnGoHeap = false // see pool_pages_system.go of blockalloc
