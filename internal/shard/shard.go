// Package shard spreads what goroutines write over shards, so that processors that
// work at once seldom write the same cache line: by a [Picker] where whatever is
// written is written atomically, and by [Pin] and Unpin where it need not be.
package shard

import (
	"math/bits"
	"runtime"
	"sync/atomic"
	"unsafe"
)

// Max is how many shards there are at most.
const Max = 64

// Count is how many shards there are, a power of two: four a processor, so that two
// goroutines that run at once seldom meet in one.
var Count = uint32(1) << min(bits.Len(uint(4*runtime.GOMAXPROCS(0)-1)), bits.Len(Max-1))

// A Picker spreads goroutines over shards. It distinguishes them by the address
// of their stacks, of which the smallest has 2 KiB: that shares no state, unlike a
// counter, and asks the runtime for nothing, unlike the number of a processor. Those
// that meet in a shard, and notice, move on to others, so that collisions do not
// last.
type Picker struct {
	shards [256]atomic.Uint32 // by hash of the stack; a hint, no more
	mask   atomic.Uint32
}

// All is the Picker of all that is sharded: who meets in one thing meets in others.
var All Picker

func init() { All.Reset(Count) }

// Reset has the Picker begin anew with count shards, a power of two.
func (p *Picker) Reset(count uint32) {
	p.mask.Store(count - 1)
	for i := range p.shards {
		p.shards[i].Store(uint32(i) & (count - 1))
	}
}

// Pick returns the caller's slot and its shard.
//
//go:nocheckptr // which would have here escape: all goroutines would be in one shard, with -asan too
func (p *Picker) Pick() (slot, shard uint32) {
	var here struct{} // has an address in the stack, and takes no instruction to clear
	slot = uint32(uint64(uintptr(unsafe.Pointer(&here))>>11) * 0x9e3779b97f4a7c15 >> 56)
	return slot, p.shards[slot].Load()
}

// Collided moves a slot to another shard, by steps that differ between slots.
func (p *Picker) Collided(slot uint32) {
	shard := &p.shards[slot]
	shard.Store((shard.Load() + (slot>>1 | 1)) & p.mask.Load())
}

// AfterPins calls f in another goroutine when each [Proc] that is pinned now has been
// unpinned: after the next garbage collection, which stops the world and for that waits for
// those who are pinned. Where [Pinned] is false, f cannot know more than that time has
// passed.
func AfterPins(f func()) {
	runtime.AddCleanup(&struct{ _ *int }{}, func(f func()) { f() }, f)
}
