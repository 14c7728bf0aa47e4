package blockalloc

import (
	"testing"

	"github.com/alloctrace/alloctrace/internal/shard"
)

// OneShard has all goroutines share a shard until the test ends, so that it can predict
// how many blocks there are. Otherwise a goroutine changes shards when its stack moves.
func OneShard(t testing.TB) {
	shard.All.Reset(1)
	t.Cleanup(func() { shard.All.Reset(shard.Count) })
}
