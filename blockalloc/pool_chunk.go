package blockalloc

import (
	"math/bits"
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/hidden"
)

// A chunk is the unit in which a Pool carves runs out of address space. It is
// aligned to its size.
const (
	chunkSize  = 1 << chunkShift
	granule    = 64 << minPoolShift // the smallest run
	granules   = chunkSize / granule
	commitStep = 4 << 20 // how much is made accessible at once, at least
)

// A chunk's runs are found by address, without a lock; the rest is guarded by
// Pool.mu.
type chunk struct {
	mark  hidden.Mark                   // it knows blocks, and does not hold them
	runs  [granules]atomic.Pointer[run] // by granule; nil where there is no run
	base  unsafe.Pointer
	arena *arena
	index int // in Pool.chunks

	taken     [(granules + 63) / 64]uint64 // by granule: it has a run
	committed uintptr                      // how many bytes from the base are accessible
	used      uintptr                      // how many may have been in a run
}

// run returns the run that holds addr, an address in the chunk.
func (c *chunk) run(addr uintptr) *run { return c.runs[addr%chunkSize/granule].Load() }

// An arena is a range of address space that was reserved in one call.
type arena struct {
	mark   hidden.Mark // it knows blocks, and does not hold them
	base   unsafe.Pointer
	chunks []*chunk
}

// A chunkTable maps an address to its chunk. The root is indexed by the upper half of a
// chunk's number, a leaf by the lower. It is read without a lock, and written under
// Pool.mu. A chunk is in the table before any of its blocks is allocated.
type chunkTable struct {
	root [1 << (tableBits - tableBits/2)]atomic.Pointer[chunkLeaf]
}

type chunkLeaf [1 << (tableBits / 2)]atomic.Pointer[chunk]

const (
	addrBits  = 32 + 16*int(wide) // the bits above are equal: ones on illumos, zeros elsewhere
	tableBits = addrBits - chunkShift
)

func (t *chunkTable) load(addr uintptr) *chunk {
	n := addr / chunkSize % (1 << tableBits)
	leaf := t.root[n>>(tableBits/2)].Load()
	if leaf == nil {
		return nil
	}
	return leaf[n%(1<<(tableBits/2))].Load()
}

func (t *chunkTable) store(addr uintptr, c *chunk) {
	n := addr / chunkSize % (1 << tableBits)
	root := &t.root[n>>(tableBits/2)]
	leaf := root.Load()
	if leaf == nil {
		leaf = new(chunkLeaf)
		root.Store(leaf)
	}
	leaf[n%(1<<(tableBits/2))].Store(c)
}

// carve makes a run of blocks of 1<<shift bytes. p.mu is held.
func (p *Pool) carve(shift int) (*run, error) {
	size := uintptr(runBlocks(shift)) << shift
	order := bits.Len(uint(size/granule)) - 1
	c, err := p.chunkWith(order)
	if err != nil {
		return nil, err
	}
	first := c.gap(order)
	if err := p.commit(c, uintptr(first+1<<order)*granule); err != nil {
		if c, first = p.committed(order); c == nil {
			return nil, err
		}
	}
	r := &run{runData: runData{
		mark:  hidden.Knowing(),
		base:  unsafe.Add(c.base, uintptr(first)*granule),
		all:   ^uint64(0) >> (64 - runBlocks(shift)),
		shift: uint8(shift),
		pool:  p,
		chunk: c,
	}}
	r.free.Store(r.all)
	r.clean.Store(r.all)
	r.reportAt.Store(p.step(r))
	start := uintptr(first) * granule
	if !purgeZeroes && start < c.used {
		r.stale.Store(r.all)
	}
	c.used = max(c.used, start+size)
	p.setOwner(c, first, order, r)
	return r, nil
}

// uncarve gives r's granules back to the chunk.
func (p *Pool) uncarve(r *run) {
	first := int((uintptr(r.base) - uintptr(r.chunk.base)) / granule)
	p.setOwner(r.chunk, first, bits.Len(uint(uintptr(bits.OnesCount64(r.all))<<r.shift/granule))-1, nil)
}

// setOwner assigns 1<<order granules of c to r, or frees them if r is nil.
func (p *Pool) setOwner(c *chunk, first, order int, r *run) {
	for g := first; g < first+1<<order; g++ {
		c.taken[g/64] ^= 1 << (g % 64)
		c.runs[g].Store(r)
	}
	p.room[c.index] = -1
	for o := bits.Len(granules) - 1; o >= 0; o-- {
		if c.gap(o) >= 0 {
			p.room[c.index] = int8(o)
			break
		}
	}
}

// gap returns the first of 1<<order free granules, at a multiple of their number, or
// -1.
func (c *chunk) gap(order int) int {
	if order >= 6 {
		words := 1 << (order - 6)
	next:
		for i := 0; i < len(c.taken); i += words {
			for _, w := range c.taken[i : i+words] {
				if w != 0 {
					continue next
				}
			}
			return i * 64
		}
		return -1
	}
	for g := 0; g < granules; g += 1 << order {
		if c.taken[g/64]>>(g%64)&(1<<(1<<order)-1) == 0 {
			return g
		}
	}
	return -1
}

// chunkWith returns the first chunk with a gap of 1<<order granules. If there is none,
// it dissolves empty runs, and then reserves a new chunk.
func (p *Pool) chunkWith(order int) (*chunk, error) {
	if c := p.roomy(order); c != nil {
		return c, nil
	}
	if p.dissolveEmpty() {
		if c := p.roomy(order); c != nil {
			return c, nil
		}
	}
	if err := p.reserve(); err != nil {
		// The current runs of other shards are the last place to look.
		p.releaseCurrent()
		p.dissolveEmpty()
		if c := p.roomy(order); c != nil {
			return c, nil
		}
		return nil, err
	}
	return p.roomy(order), nil
}

func (p *Pool) roomy(order int) *chunk {
	for i, room := range p.room {
		if int(room) >= order {
			return p.chunks[i]
		}
	}
	return nil
}

// committed returns a gap of 1<<order granules that is accessible already, for when no
// more can be committed. If there is none, it dissolves empty current runs of all
// shards and looks again.
func (p *Pool) committed(order int) (*chunk, int) {
	for range 2 {
		for i, c := range p.chunks {
			if int(p.room[i]) < order {
				continue
			}
			// The first gap is what was committed first.
			if first := c.gap(order); uintptr(first+1<<order)*granule <= c.committed {
				return c, first
			}
		}
		p.releaseCurrent()
		p.dissolveEmpty()
	}
	return nil, 0
}

// reserve gets address space for as many chunks as there are, up to 1 GiB, so that many
// chunks take few mappings. If that is refused, it gets a single chunk.
func (p *Pool) reserve() error {
	if p.pages == nil {
		p.pages = p.newPageSource()
	}
	n := min(max(1, len(p.chunks)), arenaChunks)
	base, err := p.pages.reserve(uintptr(n) * chunkSize)
	if err != nil && n > 1 {
		n = 1
		base, err = p.pages.reserve(chunkSize)
	}
	if err != nil {
		return err
	}
	a := &arena{mark: hidden.Knowing(), base: base}
	for i := range n {
		c := &chunk{mark: hidden.Knowing(), base: unsafe.Add(base, i*chunkSize), arena: a, index: len(p.chunks)}
		a.chunks = append(a.chunks, c)
		p.chunks = append(p.chunks, c)
		p.room = append(p.room, int8(bits.Len(granules)-1))
		p.table.store(uintptr(c.base), c)
	}
	p.arenas = append(p.arenas, a)
	return nil
}

// commit makes the first end bytes of c accessible.
func (p *Pool) commit(c *chunk, end uintptr) error {
	if end <= c.committed {
		return nil
	}
	end = min(roundUp(end, commitStep), chunkSize)
	start := unsafe.Add(c.base, c.committed)
	size := end - c.committed
	if err := p.pages.commit(start, size); err != nil {
		return err
	}
	c.committed = end
	return nil
}

// release gives back the arenas without a run.
func (p *Pool) release() error {
	var failed error
	kept := p.arenas[:0]
	for _, a := range p.arenas {
		if a.empty() {
			for _, c := range a.chunks { // before others can map something there
				p.table.store(uintptr(c.base), nil)
			}
			err := p.pages.release(a.base, uintptr(len(a.chunks))*chunkSize)
			if err == nil {
				continue
			}
			failed = err
			for _, c := range a.chunks {
				p.table.store(uintptr(c.base), c)
			}
		}
		kept = append(kept, a)
	}
	clear(p.arenas[len(kept):])
	p.arenas = kept
	chunks, room := p.chunks[:0], p.room[:0]
	for i, c := range p.chunks {
		if p.table.load(uintptr(c.base)) == c {
			chunks, room = append(chunks, c), append(room, p.room[i])
			c.index = len(chunks) - 1
		}
	}
	clear(p.chunks[len(chunks):])
	p.chunks, p.room = chunks, room
	return failed
}

func (a *arena) empty() bool {
	for _, c := range a.chunks {
		for _, w := range c.taken {
			if w != 0 {
				return false
			}
		}
	}
	return true
}
