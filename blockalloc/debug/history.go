package debug

import "github.com/alloctrace/alloctrace/internal/hidden"

// history has the blocks that were given back last, without pointers to their memory.
type history struct {
	blocks []record // a ring, once it is full
	next   int
}

const maxHistory = 1024

func (h *history) add(r *record) {
	old := record{mark: hidden.Knowing(), place: r.place, allocated: r.allocated, freed: r.freed, dead: true, unmapped: r.unmapped || r.guarded()}
	if len(h.blocks) < maxHistory {
		h.blocks = append(h.blocks, old)
		return
	}
	h.blocks[h.next] = old
	h.next = (h.next + 1) % maxHistory
}

// find returns the newest block for which match is true, or nil. The result is valid
// until the next add.
func (h *history) find(match func(*record) bool) *record {
	n := len(h.blocks)
	for i := range n {
		if r := &h.blocks[(h.next+n-1-i)%n]; match(r) {
			return r
		}
	}
	return nil
}

// findUnmapped returns the newest block in whose mapping addr was, or nil.
func (h *history) findUnmapped(addr uintptr) *record {
	return h.find(func(r *record) bool { return r.unmapped && addr-r.place.Addr < r.place.Layout.Size })
}
