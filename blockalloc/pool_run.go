package blockalloc

import (
	"math/bits"
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/hidden"
)

// A run is up to 64 blocks of one size side by side. One word says which of them are
// free: clearing a bit allocates the block, and setting it frees the block. The word's
// atomic update distinguishes a second free from a first.
//
// Memory ordering: Go's atomics are sequentially consistent. The next user of a block
// sees what was written before it was freed, because both update the word free.
type run struct {
	runData
	_ [128 - unsafe.Sizeof(runData{})%128]byte // keeps two runs' words off one cache line
}

type runData struct {
	mark     hidden.Mark   // it knows blocks, and does not hold them
	free     atomic.Uint64 // bit i: block i is free and anybody's to take
	frozen   atomic.Uint64 // bit i: who takes block i, or finds it taken, waits for Pool.mu and looks again
	clean    atomic.Uint64 // bit i: block i has no memory behind it, as far as this Pool knows; meant for free blocks
	stale    atomic.Uint64 // bit i: block i is not zero, or may not be, even if it is clean
	reportAt atomic.Int32  // how many free blocks have memory behind them when the run reports again; 0 while the Pool ticks: see freed
	full     atomic.Bool   // all blocks were taken: the first to free one lists the run
	shift    uint8         // log2 of a block's size

	// asked says of each block what its last request was: the size, above it the alignment, and askedZeroed. Only
	// who has the block writes its word. Owns and Find may read it meanwhile: they see the old or the new one.
	asked [64]uint64

	base  unsafe.Pointer // of block 0
	all   uint64         // a bit for each block
	pool  *Pool
	chunk *chunk

	// These are guarded by pool.mu.
	next, prev *run
	listed     bool
	dissolved  bool
	reported   int32 // free blocks with memory behind them that pool.cached counts
	taken      int32 // live blocks that pool.live counts
}

// runBlocks is how many blocks of 1<<shift bytes a run has.
func runBlocks(shift int) int { return 1 << min(6, max(0, maxRunShift-shift)) }

// step is how many blocks of a run can be freed before the Pool looks at how much
// memory they keep.
func (p *Pool) step(r *run) int32 {
	if p.MaxCached < 0 {
		return 1
	}
	return int32(max(1, bits.OnesCount64(r.all)/16))
}

// looks reports whether block i is one of those at which the Pool looks at r, where it does not count how many there
// were since it looked last.
func (p *Pool) looks(r *run, i int) bool { return (i+1)%int(p.step(r)) == 0 }

// take allocates the first free block, and reports whether it is zero. It returns nil if
// there is none or r was dissolved.
func (r *run) take() (p unsafe.Pointer, zero bool) {
	for {
		free := r.free.Load()
		if free == 0 {
			return nil, false
		}
		if r.free.CompareAndSwap(free, free&(free-1)) {
			i := bits.TrailingZeros64(free)
			zero, ok := r.settle(i)
			if !ok {
				return nil, false
			}
			return r.block(i), zero
		}
	}
}

// grant returns block i, which the caller has just taken, as the answer to l. It clears the
// block if l asks for that and it is not zero.
func (r *run) grant(i int, zero bool, l Layout) Block {
	b := r.again(i, l)
	if l.Zeroed && !zero {
		clear(b.Bytes())
	}
	return b
}

// again returns block i as the answer to l, with what is in it.
func (r *run) again(i int, l Layout) Block {
	b := r.plain(i, l)
	if l.Zeroed {
		b.align |= zeroed
		r.ask(i, uint64(l.Size)|uint64(l.Align)<<32|askedZeroed)
	}
	return b
}

// plain is again for a request that does not ask for zeroed memory.
func (r *run) plain(i int, l Layout) Block {
	r.ask(i, uint64(l.Size)|uint64(l.Align)<<32)
	return Block{r.block(i), 1 << (r.shift % 64), l.Size, l.Align}
}

// askedZeroed is set in run.asked if zeroed memory was asked for.
const askedZeroed = 1 << 63

// ask and request write and read what was asked for when block i was allocated.
//
//go:norace
func (r *run) ask(i int, asked uint64) { r.asked[i%64] = asked }

//go:norace
func (r *run) request(i int) Layout {
	asked := r.asked[i%64]
	return Layout{uintptr(uint32(asked)), uintptr(asked &^ askedZeroed >> 32), asked&askedZeroed != 0}
}

// index returns the number of the block that holds addr, an address in r.
func (r *run) index(addr uintptr) int { return int((addr - uintptr(r.base)) >> (r.shift % 64)) }

// live returns block i as it was granted last.
func (r *run) live(i int) Block { return grant(r.block(i), 1<<(r.shift%64), r.request(i)) }

// block returns block i.
func (r *run) block(i int) unsafe.Pointer {
	return unsafe.Add(r.base, uintptr(i)<<(r.shift%64))
}

// settled reports whether block i, which was just taken, is neither frozen nor clean.
func (r *run) settled(i int) bool { return (r.frozen.Load()|r.clean.Load())>>(i%64)&1 == 0 }

// settle is called for a block that was just taken. It reports whether all of it is zero, as
// far as is known, and whether r is still a run. The Pool freezes a block before it looks whether the block
// is free. Here the block is taken before the look whether it is frozen. So either the
// Pool has seen that it is taken, or the caller sees that it is frozen, and waits.
func (r *run) settle(i int) (zero, ok bool) {
	bit := uint64(1) << (i % 64)
	if r.frozen.Load()&bit != 0 && r.pool.dissolved(r) {
		r.free.Or(bit) // so that a second free is found
		return false, false
	}
	if r.clean.Load()&bit == 0 { // only who has the block changes its bit
		return false, true
	}
	r.clean.And(^bit)
	r.pool.grown(r, i)
	return r.stale.Load()&bit == 0, true
}

// grown is called when block i of r, which had no memory behind it, has been taken: for every so many blocks it looks whether
// others' memory goes back instead. If somebody else has the lock, that is left to them.
func (p *Pool) grown(r *run, i int) {
	if p.MaxCached < 0 || !p.looks(r, i) || !p.mu.TryLock() {
		return
	}
	defer p.mu.Unlock()
	p.report(r)
	p.shed(r)
}

// isLive reports whether a block is allocated.
func (r *run) isLive(bit uint64) bool {
	return r.free.Load()&bit == 0 && (r.frozen.Load()&bit == 0 || !r.pool.dissolved(r))
}

// dirty returns how many of the blocks with bits in free have memory behind them.
func (r *run) dirty(free uint64) int32 { return int32(bits.OnesCount64(free &^ r.clean.Load())) }

// dissolved reports whether r, some of whose blocks seemed frozen, was dissolved. If
// not, none of them is frozen any more.
func (p *Pool) dissolved(r *run) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return r.dissolved
}

// freed is called after a free of the block with this bit of r. Either r had no free block before, as free says,
// or it is time to look at how much memory is kept.
func (p *Pool) freed(r *run, bit, free uint64) {
	if free != 0 || !r.full.Load() {
		at := r.reportAt.Load()
		if at == 0 && !p.looks(r, bits.TrailingZeros64(bit)) || r.dirty(r.free.Load()) < at {
			return
		}
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.dissolved {
		return
	}
	p.listFreed(r)
	p.report(r)
	p.demand(r)
	p.shed(r)
}

// shed gives memory back if more is kept than may be, down to a thirty-second less, so
// that it is not called all the time. It goes round all runs, and visits last, if there is one that is
// in use now, at the end. What the operating system refuses stays for the next time.
// p.mu is held.
func (p *Pool) shed(last *run) {
	most := p.mostCached()
	if p.cached <= most {
		return
	}
	most -= most / 32
	for range p.chunks {
		p.hand = (p.hand + 1) % len(p.chunks)
		if p.shedChunk(p.chunks[p.hand], last, most) {
			return
		}
	}
	if last != nil {
		_ = p.shedRun(last, most)
	}
}

// shedChunk gives back memory of c's runs but for last, and reports whether no more than most is kept.
func (p *Pool) shedChunk(c *chunk, last *run, most int64) bool {
	for r := range c.all() {
		if p.cached <= most {
			return true
		}
		if r != last && r.reported > 0 {
			_ = p.shedRun(r, most)
		}
	}
	return p.cached <= most
}

// shedRun gives back memory of r's blocks until no more than most is kept. The first blocks keep theirs, for
// they are allocated first.
func (p *Pool) shedRun(r *run, most int64) error {
	free := r.free.Load()
	want := free &^ r.clean.Load()
	for more := int64(bits.OnesCount64(want))<<r.shift - (p.cached - most); more >= 1<<r.shift; more -= 1 << r.shift {
		want &= want - 1
	}
	if r.listed && free == r.all && want == free&^r.clean.Load() {
		return p.dissolve(r)
	}
	return p.purge(r, want)
}

// listFreed lists r if it was full and has a free block now. p.mu is held.
func (p *Pool) listFreed(r *run) {
	if r.full.Load() && r.free.Load() != 0 {
		r.full.Store(false)
		p.pushPartial(r)
	}
}

// report brings r's part of p.cached and p.live up to date. p.mu is held.
func (p *Pool) report(r *run) {
	free := r.free.Load()
	dirty, taken := r.dirty(free), int32(bits.OnesCount64(r.all&^free))
	p.cached += int64(dirty-r.reported) << r.shift
	p.live += int64(taken-r.taken) << r.shift
	r.reported, r.taken = dirty, taken
	if p.ticking {
		p.peaks[0] = max(p.peaks[0], p.liveBytes())
		r.reportAt.Store(0)
	} else {
		r.reportAt.Store(dirty + p.step(r))
	}
}

// freeze returns those of the blocks in want that are free. An allocation of one of
// them from now on waits for p.mu, which is held until thaw.
func (r *run) freeze(want uint64) uint64 {
	r.frozen.Swap(want) // not Store: see exhausted
	frozen := r.free.Load() & want
	r.frozen.Store(frozen)
	return frozen
}

// thaw undoes freeze.
func (r *run) thaw() { r.frozen.Store(0) }

// purge gives back the memory of those of the blocks in want that are free. An
// allocation of one of them waits meanwhile. p.mu is held.
func (p *Pool) purge(r *run, want uint64) error {
	frozen := r.freeze(want)
	var failed error
	for left := frozen; left != 0; {
		first := bits.TrailingZeros64(left)
		n := bits.TrailingZeros64(^(left >> first)) // blocks side by side
		group := (uint64(1)<<n - 1) << first        // for n = 64 the shift gives 0, and so all bits
		left &^= group
		if err := p.pages.purge(unsafe.Add(r.base, uintptr(first)<<r.shift), uintptr(n)<<r.shift); err != nil {
			failed = err
			continue
		}
		if !purgeZeroes {
			r.stale.Or(group)
		}
		r.clean.Or(group)
	}
	r.thaw()
	p.report(r)
	return failed
}

// dissolve gives back r's memory and its place in the chunk, if all its blocks are
// free. They stay frozen, so that goroutines that still have r find out that it was
// dissolved. p.mu is held, and r is neither current nor full.
func (p *Pool) dissolve(r *run) error {
	if r.freeze(r.all) != r.all {
		r.thaw()
		return nil
	}
	if err := p.pages.purge(r.base, r.bytes()); err != nil {
		r.thaw()
		return err
	}
	p.cached -= int64(r.reported) << r.shift
	p.live -= int64(r.taken) << r.shift
	r.reported, r.taken, r.dissolved = 0, 0, true
	if r.listed {
		p.unlist(r)
	}
	p.uncarve(r)
	return nil
}
