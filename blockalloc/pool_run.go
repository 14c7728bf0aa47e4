package blockalloc

import (
	"math/bits"
	"sync/atomic"
	"unsafe"
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
	free     atomic.Uint64 // bit i: block i is free and anybody's to take
	frozen   atomic.Uint64 // bit i: who takes block i, or finds it taken, waits for Pool.mu and looks again
	clean    atomic.Uint64 // bit i: block i has no memory behind it, as far as this Pool knows; meant for free blocks
	reportAt atomic.Int32  // how many free blocks have memory behind them when the run reports again
	full     atomic.Bool   // all blocks were taken: the first to free one lists the run
	shift    uint8         // log2 of a block's size

	base  unsafe.Pointer // of block 0
	all   uint64         // a bit for each block
	pool  *Pool
	chunk *chunk

	// These are guarded by pool.mu.
	next, prev *run
	listed     bool
	dissolved  bool
	reported   int32 // free blocks with memory behind them that pool.cached counts
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

// take allocates the first free block. It returns nil if there is none or r was
// dissolved.
func (r *run) take() unsafe.Pointer {
	for {
		free := r.free.Load()
		if free == 0 {
			return nil
		}
		if r.free.CompareAndSwap(free, free&(free-1)) {
			return r.taken(free)
		}
	}
}

// taken returns the block of the lowest bit in free, which the caller has just cleared,
// or nil if r was dissolved.
func (r *run) taken(free uint64) unsafe.Pointer {
	i := bits.TrailingZeros64(free)
	if !r.settled(i) && !r.settle(i) {
		return nil
	}
	return r.block(i)
}

// block returns block i.
func (r *run) block(i int) unsafe.Pointer {
	return unsafe.Add(r.base, uintptr(i)<<(r.shift%64))
}

// settled reports whether block i, which was just taken, is neither frozen nor clean.
func (r *run) settled(i int) bool { return (r.frozen.Load()|r.clean.Load())>>(i%64)&1 == 0 }

// settle is called for a block that was just taken and is not settled. It reports
// whether r is still a run. The Pool freezes a block before it looks whether the block
// is free. Here the block is taken before the look whether it is frozen. So either the
// Pool has seen that it is taken, or the caller sees that it is frozen, and waits.
func (r *run) settle(i int) bool {
	bit := uint64(1) << (i % 64)
	if r.frozen.Load()&bit != 0 && r.pool.dissolved(r) {
		r.free.Or(bit) // so that a second free is found
		return false
	}
	r.clean.And(^bit) // only who has the block changes its bit
	return true
}

// live reports whether a block is allocated.
func (r *run) live(bit uint64) bool {
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

// freed is called after a free into r. Either r had no free block before, as free says,
// or it is time to look at how much memory is kept.
func (p *Pool) freed(r *run, free uint64) {
	if (free != 0 || !r.full.Load()) && r.dirty(r.free.Load()) < r.reportAt.Load() {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if r.dissolved {
		return
	}
	p.listFreed(r)
	p.report(r)
	p.shed(r)
}

// shed gives memory back if more than MaxCached is kept, down to an eighth less, so
// that it is not called all the time. It goes round all runs, and visits last, which is
// in use now, at the end. What the operating system refuses stays for the next time.
// p.mu is held.
func (p *Pool) shed(last *run) {
	most := p.maxCached()
	if p.cached <= most {
		return
	}
	most -= most / 8
	for range p.chunks {
		p.hand = (p.hand + 1) % len(p.chunks)
		for r := range p.chunks[p.hand].all() {
			if r == last || r.reported == 0 {
				continue
			}
			_ = p.shedRun(r)
			if p.cached <= most {
				return
			}
		}
	}
	_ = p.shedRun(last)
}

func (p *Pool) shedRun(r *run) error {
	if r.listed && r.free.Load() == r.all {
		return p.dissolve(r)
	}
	return p.purge(r, r.free.Load()&^r.clean.Load())
}

// listFreed lists r if it was full and has a free block now. p.mu is held.
func (p *Pool) listFreed(r *run) {
	if r.full.Load() && r.free.Load() != 0 {
		r.full.Store(false)
		p.pushPartial(r)
	}
}

// report brings r's part of p.cached up to date. p.mu is held.
func (p *Pool) report(r *run) {
	dirty := r.dirty(r.free.Load())
	p.cached += int64(dirty-r.reported) << r.shift
	r.reported = dirty
	r.reportAt.Store(dirty + p.step(r))
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
	r.reported, r.dissolved = 0, true
	if r.listed {
		p.unlist(r)
	}
	p.uncarve(r)
	return nil
}
