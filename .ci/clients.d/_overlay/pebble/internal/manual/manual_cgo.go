package manual

import (
	"alloctrace.example/clients/manualmem"
	"alloctrace.example/clients/memory"
)

// shared is what New and Free take memory from, instead of C's calloc and free.
var shared = manualmem.New(memory.Default(), "unknown", "cache map", "cache entry", "cache data", "memtable")

// New returns n zeroed bytes for the purpose.
func New(purpose Purpose, n uintptr) Buf {
	p := shared.Allocate(int(purpose), n)
	recordAlloc(purpose, n)
	return Buf{data: p, n: n}
}

// Free gives back what New returned.
func Free(purpose Purpose, b Buf) {
	recordFree(purpose, b.n)
	shared.Free(int(purpose), b.data, b.n)
}
