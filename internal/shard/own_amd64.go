//go:build gc && !race && !alloctrace_nolinkname

package shard

import (
	"sync/atomic"
	"unsafe"
)

// Add adds n to a word of the caller's shard, and returns the sum.
func (Proc) Add(w *atomic.Int64, n int64) int64 {
	word := (*int64)(unsafe.Pointer(w))
	*word += n
	return *word
}

// Store stores v in a word of the caller's shard.
func (Proc) Store(w *atomic.Uint64, v uint64) { *(*uint64)(unsafe.Pointer(w)) = v }
