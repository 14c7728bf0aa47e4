package history

import (
	"time"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/exporters/recording"
)

// A Block is one that was acquired, and what has become of it.
type Block struct {
	Addr      uintptr `json:"addr"`
	Size      uintptr `json:"size"`                // granted bytes
	Requested uintptr `json:"requested,omitempty"` // bytes; 0 if it is not known
	Site      *Site   `json:"-"`
	Region    string  `json:"region,omitempty"` // the innermost one in which it was acquired

	ReleasedBy *recording.Stack `json:"-"` // nil if it is not known

	Acquired time.Duration `json:"acquired_ns"` // if Older, it was acquired before this
	Released time.Duration `json:"released_ns"` // or the end, if it is Live; if Lost, it was released before this

	Live  bool `json:"live,omitempty"`  // at the end
	Older bool `json:"older,omitempty"` // its acquisition is not in the recording
	Lost  bool `json:"lost,omitempty"`  // its release is not in the recording
}

// Life returns how long b has lived: if it is Older or Live at least, if it is Lost at most.
func (b *Block) Life() time.Duration { return b.Released - b.Acquired }

// LiveAt reports whether b was live at a moment. Of a block that is Older or Lost it is false where that is not known.
func (b *Block) LiveAt(at time.Duration) bool {
	return !b.Lost && b.Acquired <= at && (b.Live || at < b.Released)
}

// undoable is how many releases may follow one before its failure does.
const undoable = 1 << 16

type blockKey struct {
	addr  uintptr
	proxy uint32
}

// A slot has a block, from its acquisition until undoable others were released after it.
type slot struct {
	key             blockKey
	size, requested uintptr
	acquired        time.Duration
	released        time.Duration
	site            *Site
	releasedBy      *recording.Stack
	region          uint32
	gap             uint32 // the gaps before it was acquired
	turn            uint32 // changes whenever a release of it is settled or taken back
	frees, reallocs uint16 // releases that could be taken back, by how
	odd             uint16 // releases of another size, oddSize, of no block
	oddSize         uintptr
	state           uint8
	older, counted  bool
}

const (
	stateFree = iota
	stateLive
	stateReleased
)

// blocks are those that are live, and those that were released a short time ago.
type blocks struct {
	index map[blockKey]uint32
	slots []slot
	free  []uint32
	queue [undoable]struct{ slot, turn uint32 } // released
	next  uint64
	gap   uint32
}

func newBlocks() blocks { return blocks{index: make(map[blockKey]uint32)} }

func (b *blocks) add(k blockKey) uint32 {
	var i uint32
	if n := len(b.free); n > 0 {
		i, b.free = b.free[n-1], b.free[:n-1]
	} else {
		i = uint32(len(b.slots))
		b.slots = append(b.slots, slot{})
	}
	b.index[k] = i
	b.slots[i] = slot{key: k, turn: b.slots[i].turn, gap: b.gap}
	return i
}

func (b *blocks) remove(i uint32) {
	s := &b.slots[i]
	delete(b.index, s.key)
	s.state, s.site, s.releasedBy = stateFree, nil, nil
	s.turn++
	b.free = append(b.free, i)
}

func (h *History) key(e recording.Event) blockKey {
	n, ok := h.proxies[e.Proxy]
	if !ok {
		n = uint32(len(h.proxies))
		h.proxies[e.Proxy] = n
	}
	return blockKey{e.Addr, n}
}

func (h *History) region(name string) uint32 {
	n, ok := h.regions[name]
	if !ok {
		n = uint32(len(h.names))
		h.names = append(h.names, name)
		h.regions[name] = n
	}
	return n
}

func (h *History) acquire(e recording.Event) {
	k := h.key(e)
	if i, ok := h.blocks.index[k]; ok {
		if s := &h.blocks.slots[i]; s.state == stateLive {
			h.lose(i)
		} else {
			h.settle(i)
		}
	}
	i := h.blocks.add(k)
	s := &h.blocks.slots[i]
	s.state, s.size, s.requested, s.acquired = stateLive, e.Size, e.Requested, e.At
	s.site, s.region = h.sites.of(e.Stack, ownerKey{e.Proxy, e.Child}), h.region(e.Region)
	if h.options.Keep != nil && !h.options.Keep(s.site, e.Region) {
		return
	}
	s.counted, s.site.owner.seen = true, true
	s.site.Allocated.add(1, int64(e.Size))
	s.site.owner.Allocated.add(1, int64(e.Size))
	h.change(s.site, s.region, 1, int64(e.Size))
}

func (h *History) release(e recording.Event) {
	k := h.key(e)
	i, ok := h.blocks.index[k]
	if ok {
		s := &h.blocks.slots[i]
		if s.state == stateLive && s.size != e.Size && s.gap != h.blocks.gap {
			h.lose(i)
			ok = false
		}
	}
	if !ok {
		i = h.older(k, e)
	}
	s := &h.blocks.slots[i]
	if s.size != e.Size { // which the inner allocator should refuse
		if s.oddSize != e.Size {
			s.odd, s.oddSize = 0, e.Size
		}
		s.odd++
		h.unmatched(s, e.Size, 1)
		return
	}
	if e.Kind == alloctrace.Freeing {
		s.frees++
	} else {
		s.reallocs++
	}
	if s.state == stateReleased {
		h.unmatched(s, e.Size, 1)
		return
	}
	s.state, s.released, s.releasedBy = stateReleased, e.At, e.Stack
	if s.counted && !s.older {
		s.site.Freed.add(1, int64(s.size))
		h.change(s.site, s.region, -1, -int64(s.size))
	}
	if before, ok := h.blocks.queued(i); ok {
		h.settle(before)
	}
}

// queued puts a release into the queue, and returns the one that has to leave it if there is one.
func (b *blocks) queued(i uint32) (before uint32, ok bool) {
	place := &b.queue[b.next%undoable]
	before = place.slot
	ok = b.next >= undoable && b.slots[before].turn == place.turn && b.slots[before].state == stateReleased
	place.slot, place.turn = i, b.slots[i].turn
	b.next++
	return before, ok
}

// older adds a block that is being released, and whose acquisition is not there.
func (h *History) older(k blockKey, e recording.Event) uint32 {
	i := h.blocks.add(k)
	s := &h.blocks.slots[i]
	s.state, s.older, s.size, s.acquired = stateLive, true, e.Size, h.since
	s.site, s.region = h.sites.of(nil, ownerKey{e.Proxy, e.Child}), h.region("")
	if h.options.Keep == nil || h.options.Keep(s.site, "") {
		s.counted, s.site.owner.seen = true, true
		h.missing(s, 1)
	}
	return i
}

// missing counts a block whose acquisition is not there.
func (h *History) missing(s *slot, n int64) {
	if s.gap == 0 {
		h.unknown.Older.add(n, n*int64(s.size))
	} else {
		h.unknown.Unmatched.add(n, n*int64(s.size))
	}
}

// unmatched counts a release where there was nothing to release.
func (h *History) unmatched(s *slot, size uintptr, n int64) {
	if s.counted {
		h.unknown.Unmatched.add(n, n*int64(size))
	}
}

// restore takes a release back that has failed.
func (h *History) restore(e recording.Event) {
	i, ok := h.blocks.index[h.key(e)]
	if !ok {
		return
	}
	s := &h.blocks.slots[i]
	if s.size != e.Size {
		if s.odd > 0 && s.oddSize == e.Size {
			s.odd--
			h.unmatched(s, e.Size, -1)
		}
		return
	}
	by := &s.frees
	if e.Kind == alloctrace.ReallocateFailed {
		by = &s.reallocs
	}
	if s.state == stateLive || *by == 0 {
		return
	}
	*by--
	switch {
	case s.frees+s.reallocs > 0:
		h.unmatched(s, e.Size, -1)
	case s.older:
		if s.counted {
			h.missing(s, -1)
		}
		h.blocks.remove(i)
	default:
		s.state = stateLive
		s.turn++
		if s.counted {
			s.site.Freed.add(-1, -int64(s.size))
			h.change(s.site, s.region, 1, int64(s.size))
		}
	}
}

// settle ends a block whose release stands.
func (h *History) settle(i uint32) {
	s := &h.blocks.slots[i]
	if s.counted && !s.older {
		s.site.Longest = max(s.site.Longest, s.released-s.acquired)
	}
	h.tell(s, Block{})
	h.blocks.remove(i)
}

// lose ends a live block, whose release must be missing.
func (h *History) lose(i uint32) {
	s := &h.blocks.slots[i]
	if s.counted {
		h.unknown.Lost.add(1, int64(s.size))
		h.change(s.site, s.region, -1, -int64(s.size))
	}
	s.released = h.now
	h.tell(s, Block{Lost: true})
	h.blocks.remove(i)
}

// tell calls Ended for a block that was counted.
func (h *History) tell(s *slot, b Block) {
	if h.options.Ended != nil && s.counted {
		h.options.Ended(h.block(s, b))
	}
}

func (h *History) block(s *slot, b Block) Block {
	b.Addr, b.Size, b.Requested, b.Site, b.Region = s.key.addr, s.size, s.requested, s.site, h.names[s.region]
	b.Acquired, b.Released, b.Older = s.acquired, s.released, s.older
	switch {
	case b.Live:
		b.Released = h.now
	case !b.Lost:
		b.ReleasedBy = s.releasedBy
	}
	return b
}
