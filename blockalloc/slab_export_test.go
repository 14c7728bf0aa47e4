package blockalloc

import (
	"testing"

	"github.com/alloctrace/alloctrace/internal/shard"
)

// OneShard has all goroutines share a shard until the test ends, so that it can say
// how many blocks there are: otherwise a goroutine is now in one shard and now in
// another, for its stack grows and moves.
func OneShard(t testing.TB) {
	shard.All.Reset(1)
	t.Cleanup(func() { shard.All.Reset(shard.Count) })
}
