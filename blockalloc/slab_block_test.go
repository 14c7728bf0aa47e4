package blockalloc

import "testing"

// newTestBlock returns the header of a block with n free slots of 512 bytes, and
// others that are live.
func newTestBlock(t *testing.T, slots, free int) *slabBlock {
	t.Helper()
	c := &slabClass{slabClassData: slabClassData{size: 512, slots: uint32(slots)}}
	mem, err := new(Heap).Allocate(Layout{Size: uintptr(slots) * 512, Align: 4 << 10})
	if err != nil {
		t.Fatal(err)
	}
	h := newSlabBlock(c, mem)
	for range slots - free {
		h.take()
	}
	return h
}

// TestSlabClaim: a block is claimed whole or not at all, also if a slot was allocated
// since the block seemed to be empty.
func TestSlabClaim(t *testing.T) {
	for slots := 8; slots <= 100; slots += 23 {
		for live := range slots {
			h := newTestBlock(t, slots, slots)
			word, bit := h.bit(uint32(live))
			word.And(^bit)
			if h.claimWords() || h.liveSlots() != 1 || word.isLive(bit) != true {
				t.Fatalf("of %d slots, number %d is live, and the block is claimed", slots, live)
			}
			for range slots - 1 {
				if h.take() == nil {
					t.Fatalf("of %d slots, number %d is live, and others are lost", slots, live)
				}
			}
			if h.take() != nil || h.liveSlots() != slots {
				t.Fatalf("of %d slots, %d are live", slots, h.liveSlots())
			}
		}
		h := newTestBlock(t, slots, slots)
		if !h.claim() || h.liveSlots() != 0 || h.take() != nil || h.empty() {
			t.Fatalf("an empty block of %d slots is not claimed", slots)
		}
		h.unclaim(len(h.free))
		for range slots {
			if h.take() == nil {
				t.Fatalf("of %d slots some are lost when they are not claimed any more", slots)
			}
		}
	}
}

// TestSlabLeave: a block is left as full only if no slot was freed meanwhile.
func TestSlabLeave(t *testing.T) {
	for slots := 8; slots <= 100; slots += 23 {
		for free := range slots {
			h := newTestBlock(t, slots, 0)
			if !h.leave() || h.state.Load() != slabFull {
				t.Fatal("a full block is not left")
			}
			word, bit := h.bit(uint32(free))
			word.Or(bit)
			if h.leave() || h.state.Load() != slabCurrent {
				t.Fatalf("of %d slots, number %d is free, and the block is left as full", slots, free)
			}
		}
	}
}
