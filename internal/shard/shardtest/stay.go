// Package shardtest has what tests of sharded structures share.
package shardtest

import (
	"runtime"
	"runtime/debug"
	"testing"
)

// Stay keeps the caller's goroutine in one shard until the test ends: on one processor, and
// with a stack that neither grows nor shrinks, for where a shard is picked by its address.
func Stay(t testing.TB) {
	procs := runtime.GOMAXPROCS(1)
	percent := debug.SetGCPercent(-1) // a collection would shrink the stack
	runtime.GC()                      // ends one that is under way
	growStack()
	t.Cleanup(func() {
		debug.SetGCPercent(percent)
		runtime.GOMAXPROCS(procs)
	})
}

// growStack has the stack take 64 KiB more than its caller needs.
//
//go:noinline
func growStack() {
	var frame [64 << 10]byte
	runtime.KeepAlive(&frame)
}
