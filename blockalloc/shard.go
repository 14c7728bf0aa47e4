package blockalloc

import (
	"math/bits"
	"runtime"
	"sync/atomic"
	"unsafe"
)

const maxShards = 64

// shardMask is one less than how many shards are in use: four a processor, so that
// two goroutines that run at once seldom meet in one.
var shardMask = uint32(1)<<min(bits.Len(uint(4*runtime.GOMAXPROCS(0)-1)), bits.Len(maxShards-1)) - 1

// A shardPicker spreads goroutines over shards. It tells them apart by the address
// of their stacks, of which the smallest has 2 KiB: that shares no state, unlike a
// counter, and asks the runtime for nothing, unlike the number of a processor. Those
// that meet in a shard, and tell by an atomic operation that failed, move on to
// others, so that collisions do not last.
type shardPicker struct {
	moved [256]atomic.Uint32 // by hash of the stack: how far to go from there; a hint, no more
}

// pick returns the caller's slot and its shard.
func (s *shardPicker) pick() (slot, shard uint32) {
	var here byte
	slot = uint32(uint64(uintptr(unsafe.Pointer(&here))>>11) * 0x9e3779b97f4a7c15 >> 56)
	return slot, (slot + s.moved[slot].Load()) & shardMask
}

// collided moves a slot to another shard, by steps that differ between slots.
func (s *shardPicker) collided(slot uint32) { s.moved[slot].Add(slot>>1 | 1) }
