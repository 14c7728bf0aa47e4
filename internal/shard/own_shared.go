//go:build !(gc && !race && !alloctrace_nolinkname && (amd64 || arm64))

package shard

import "sync/atomic"

// Pinned is whether nobody else writes the caller's shard between [Pin] and
// Unpin.
const Pinned = false

// NumProcs is how many shards there are for [Pin].
var NumProcs = int(Count)

// Pin returns the caller's shard.
func Pin() Proc {
	_, i := All.Pick()
	return Proc{int(i)}
}

// Unpin ends what [Pin] began.
func (Proc) Unpin() {}

// Add adds n to a word of the caller's shard, and returns the sum.
func (Proc) Add(w *atomic.Int64, n int64) int64 { return w.Add(n) }

// Store stores v in a word of the caller's shard.
func (Proc) Store(w *atomic.Uint64, v uint64) { w.Store(v) }
