//go:build !(gc && !race && !alloctrace_nolinkname && (amd64 || arm64))

package shard

import "sync/atomic"

// Exclusive is whether nobody else writes the caller's shard between [Enter] and
// [Leave].
const Exclusive = false

// Own is how many shards there are for [Enter].
var Own = int(Count)

// Enter returns the number of the caller's shard.
func Enter() int {
	_, i := All.Pick()
	return int(i)
}

// Leave ends what Enter began.
func Leave() {}

// Add adds n to a word of the caller's shard, and returns the sum.
func Add(w *atomic.Int64, n int64) int64 { return w.Add(n) }

// Store stores v in a word of the caller's shard.
func Store(w *atomic.Uint64, v uint64) { w.Store(v) }
