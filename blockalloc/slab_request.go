package blockalloc

import (
	"math/bits"
	"sync/atomic"
)

// slabRequests says of each slot of a block what its last request was. Most blocks serve requests of one layout: then
// that is all there is. A list is made when another one comes.
//
// Memory ordering: common and list are set once, atomically. An element of the list is written only by who has the slot,
// and read by who has it, after the atomic operations that have made the slot theirs or have handed it on. Find
// may read it meanwhile, and sees the old request or the new one. A list that was made when the slot had another
// owner is seen by all later owners.
type slabRequests struct {
	common atomic.Uint32 // the first request, with slabRequested; 0 until it comes
	list   atomic.Pointer[slabRequestList]
}

// A slabRequestList has for each slot the bits in which its request differs from the common one.
type slabRequestList struct {
	short []uint16 // for slots of up to maxShortSlot bytes
	long  []uint32 // for others
}

// A request in a word: whether it is for zeroed memory, log2 of the alignment, and how many bytes less than the slot's
// were asked for. The last takes 10 bits in slots of up to maxShortSlot bytes, and 19 in the largest.
const (
	slabZeroed     = 1
	slabAlignShift = 1
	slabSlackShift = 6
	slabRequested  = 1 << 31
	maxShortSlot   = 1 << (16 - slabSlackShift)
)

func newSlabRequest(slot uintptr, l Layout) uint32 {
	v := uint32(slot-l.Size)<<slabSlackShift | uint32(bits.TrailingZeros64(uint64(l.Align)))<<slabAlignShift | slabRequested
	if l.Zeroed {
		v |= slabZeroed
	}
	return v
}

// store keeps the request of a slot of h, which the caller has.
func (q *slabRequests) store(h *slabBlock, slot uint32, l Layout) {
	if v := newSlabRequest(h.size, l); v != q.common.Load() || q.list.Load() != nil {
		q.storeOther(h, slot, v)
	}
}

//go:norace
func (q *slabRequests) storeOther(h *slabBlock, slot, v uint32) {
	if q.common.CompareAndSwap(0, v) {
		return // a list that was made since has the slot as one of the common request
	}
	differs := v ^ q.common.Load()
	list := q.list.Load()
	if list == nil {
		if differs == 0 {
			return
		}
		list = q.newList(h)
	}
	if list.short != nil {
		list.short[slot] = uint16(differs)
	} else {
		list.long[slot] = differs
	}
}

// newList makes the list. Of several calls at once, one stores its list and all return that.
func (q *slabRequests) newList(h *slabBlock) *slabRequestList {
	list := new(slabRequestList)
	if h.size <= maxShortSlot {
		list.short = make([]uint16, h.slots)
	} else {
		list.long = make([]uint32, h.slots)
	}
	q.list.CompareAndSwap(nil, list)
	return q.list.Load()
}

// load returns the last request of a slot of h, which is or was live.
//
//go:norace
func (q *slabRequests) load(h *slabBlock, slot uint32) Layout {
	v := q.common.Load()
	if list := q.list.Load(); list != nil {
		if list.short != nil {
			v ^= uint32(list.short[slot])
		} else {
			v ^= list.long[slot]
		}
	}
	v &^= slabRequested
	return Layout{
		Size:   h.size - uintptr(v>>slabSlackShift),
		Align:  1 << (v >> slabAlignShift & (1<<(slabSlackShift-slabAlignShift) - 1)),
		Zeroed: v&slabZeroed != 0,
	}
}
