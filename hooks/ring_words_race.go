//go:build race

package hooks

import "sync/atomic"

// The race detector would report what a reader finds out by the hash.

func store(w *uint64, v uint64) { atomic.StoreUint64(w, v) }

func load(w *uint64) uint64 { return atomic.LoadUint64(w) }
