// Package shardtest has what tests of sharded structures share.
package shardtest

import (
	"runtime"
	"testing"

	"github.com/alloctrace/alloctrace/internal/shard"
)

// OneShard has all goroutines share the one shard of [shard.All] until the test ends, so that the test can predict what is in
// it. A goroutine changes shards otherwise when its stack moves. It may move at any call: a goroutine inherits a shrink that
// an earlier one, whose descriptor the runtime has used again, did not get to.
func OneShard(t testing.TB) {
	shard.All.Reset(1)
	t.Cleanup(func() { shard.All.Reset(shard.Count) })
}

// Stay is OneShard on one processor: the shard of [shard.Pin] is one as well, and no two goroutines run at once.
func Stay(t testing.TB) {
	procs := runtime.GOMAXPROCS(1)
	t.Cleanup(func() { runtime.GOMAXPROCS(procs) })
	OneShard(t)
}
