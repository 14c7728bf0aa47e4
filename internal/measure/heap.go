package measure

import "runtime"

// HeapGrowth returns what make returns, and by how many bytes the Go heap has grown for it. Other
// goroutines may allocate meanwhile: some KiB more or less are noise.
func HeapGrowth[T any](make func() T) (made T, bytes int64) {
	before := heapInUse()
	made = make()
	return made, heapInUse() - before
}

func heapInUse() int64 {
	runtime.GC()
	runtime.GC() // collects what a sync.Pool kept until the first
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
