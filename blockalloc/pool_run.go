package blockalloc

import (
	"math/bits"
	"sync/atomic"
	"unsafe"
)

// A run is up to 64 blocks of one size side by side, and one word that says which
// of them are free: whoever clears a bit has allocated that block, and whoever sets
// it has freed it. The word's own atomic update so tells a second free from a first.
//
// Memory ordering: Go's atomics are sequentially consistent. A block's content is
// handed from the one who frees it to the next who allocates it by the word free.
type run struct {
	runData
	_ [128 - unsafe.Sizeof(runData{})%128]byte // keeps two runs' words off one cache line
}

type runData struct {
	free  atomic.Uint64 // bit i: block i is free and anybody's to take
	held  atomic.Uint64 // bit i: block i may be in the Pool's own hands: look again under Pool.mu
	clean atomic.Uint64 // bit i: block i has no memory behind it, as far as this Pool knows; meant for free blocks
	mark  atomic.Int32  // report when so many free blocks have memory behind them
	full  atomic.Bool   // all blocks were taken: the first to free one lists the run
	shift uint8         // log2 of a block's size

	base  unsafe.Pointer // of block 0
	all   uint64         // a bit for each block
	pool  *Pool
	chunk *chunk

	// These are guarded by pool.mu.
	next, prev *run
	listed     bool
	dissolved  bool
	told       int32 // free blocks with memory behind them that pool.cached counts
}

// runBlocks is how many blocks of 1<<shift bytes a run has.
func runBlocks(shift int) int { return 1 << min(6, max(0, maxRunShift-shift)) }

// step is how many blocks of a run may be freed before the Pool looks at how much
// memory they keep.
func (p *Pool) step(r *run) int32 {
	if p.MaxCached < 0 {
		return 1
	}
	return int32(max(1, bits.OnesCount64(r.all)/16))
}

// take allocates the first free block, nil if there is none.
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

// taken returns the block of the lowest bit in free, which the caller has just
// cleared.
func (r *run) taken(free uint64) unsafe.Pointer {
	i := bits.TrailingZeros64(free)
	if r.clean.Load()>>i&1 != 0 { // only who has the block changes its bit
		r.clean.And(^(1 << i))
	}
	return unsafe.Add(r.base, uintptr(i)<<r.shift)
}

// live reports whether a block is allocated.
func (r *run) live(bit uint64) bool {
	if r.held.Load()&bit != 0 {
		r.pool.mu.Lock() // then nothing is held but the blocks of dissolved runs
		defer r.pool.mu.Unlock()
		return !r.dissolved && r.free.Load()&bit == 0
	}
	return r.free.Load()&bit == 0
}

// dirty returns how many of the blocks whose bits are in free have memory behind
// them.
func (r *run) dirty(free uint64) int32 { return int32(bits.OnesCount64(free &^ r.clean.Load())) }

// dissolved reports whether a run, some of whose blocks seemed to be held, is no
// more. Otherwise none of them is held after it.
func (p *Pool) dissolved(r *run) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return r.dissolved
}

// freed is called after a block of r was freed when r had none before, as free
// says, or when it is time to look at how much memory is kept.
func (p *Pool) freed(r *run, free uint64) {
	if (free != 0 || !r.full.Load()) && r.dirty(r.free.Load()) < r.mark.Load() {
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

// shed gives memory back while more is kept than should be, and some more, so that
// it is not called all the time. It goes round all runs and comes to last, which is
// in use just now, at the end. What the operating system does not take stays for the
// next time. p.mu is held.
func (p *Pool) shed(last *run) {
	most := p.maxCached()
	if p.cached <= most {
		return
	}
	most -= most / 8
	for range p.chunks {
		p.hand = (p.hand + 1) % len(p.chunks)
		for r := range p.chunks[p.hand].all() {
			if r == last || r.told == 0 {
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

// listFreed lists r if it was full and is not any more. p.mu is held.
func (p *Pool) listFreed(r *run) {
	if r.full.Load() && r.free.Load() != 0 {
		r.full.Store(false)
		p.pushPartial(r)
	}
}

// report brings r's part of p.cached up to date. p.mu is held.
func (p *Pool) report(r *run) {
	dirty := r.dirty(r.free.Load())
	p.cached += int64(dirty-r.told) << r.shift
	r.told = dirty
	r.mark.Store(dirty + p.step(r))
}

// hold takes those of the blocks in want that are free. p.mu is held until they
// are let go.
func (r *run) hold(want uint64) uint64 {
	r.held.Store(want)
	for {
		free := r.free.Load()
		if r.free.CompareAndSwap(free, free&^want) {
			r.held.Store(free & want)
			return free & want
		}
	}
}

// letGo makes held blocks free again. p.mu is held.
func (p *Pool) letGo(r *run, held uint64) {
	r.free.Or(held)
	r.held.Store(0)
	p.listFreed(r)
}

// purge gives back the memory of those of the blocks in want that are free.
// Meanwhile nobody can allocate them. p.mu is held.
func (p *Pool) purge(r *run, want uint64) error {
	held := r.hold(want)
	var failed error
	for left := held; left != 0; {
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
	p.letGo(r, held)
	p.report(r)
	return failed
}

// dissolve gives back r's memory and its place in the chunk, if all its blocks are
// free. Who still knows r finds no free block in it, and all of them held. p.mu is
// held, and r is neither anybody's current run nor full.
func (p *Pool) dissolve(r *run) error {
	if held := r.hold(r.all); held != r.all {
		p.letGo(r, held)
		return nil
	}
	if err := p.pages.purge(r.base, uintptr(bits.OnesCount64(r.all))<<r.shift); err != nil {
		p.letGo(r, r.all)
		return err
	}
	p.cached -= int64(r.told) << r.shift
	r.told, r.dissolved = 0, true
	if r.listed {
		p.unlist(r)
	}
	p.uncarve(r)
	return nil
}
