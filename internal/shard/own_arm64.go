//go:build gc && !race && !alloctrace_nolinkname

package shard

import "sync/atomic"

// Add adds n to a word of the caller's shard, and returns the sum.
func (Proc) Add(w *atomic.Int64, n int64) int64 {
	sum := w.Load() + n
	w.Store(sum)
	return sum
}

// Store stores v in a word of the caller's shard.
func (Proc) Store(w *atomic.Uint64, v uint64) { w.Store(v) }
