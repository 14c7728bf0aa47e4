// Package ways says which way this library goes in a program, where there is a fast way with
// the help of the Go runtime's inner parts, and another without.
package ways

import (
	"github.com/alloctrace/alloctrace/internal/callers"
	"github.com/alloctrace/alloctrace/internal/random"
	"github.com/alloctrace/alloctrace/internal/shard"
)

// What [String] returns at most and at least.
const (
	Fast     = "shards=pinned random=runtime stacks=framepointers"
	Portable = "shards=picked random=math/rand stacks=runtime.Callers"
)

// String returns the three ways: how shards are found, random numbers drawn and stacks walked.
func String() string {
	shards, numbers, stacks := "picked", "math/rand", "runtime.Callers"
	if shard.Pinned {
		shards = "pinned"
	}
	if random.FromRuntime {
		numbers = "runtime"
	}
	if callers.FollowsFramePointers() {
		stacks = "framepointers"
	}
	return "shards=" + shards + " random=" + numbers + " stacks=" + stacks
}
