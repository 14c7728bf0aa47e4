package blockalloc

import (
	"cmp"
	"fmt"
	"math/bits"
	"slices"
	"time"
)

// defaultMaxCached is what [Pool.MaxCached] is if it is zero.
const defaultMaxCached = 64 << 20

func (p *Pool) maxCached() int64 { return max(0, cmp.Or(p.MaxCached, defaultMaxCached)) }

// mostCached is how much may be kept now: while it ticks, as much as makes what is live and what is kept
// no more than the recent peak of what was live and maxCached. p.mu is held.
func (p *Pool) mostCached() int64 {
	return p.maxCached() + max(0, max(p.peaks[0], p.peaks[1])-p.liveBytes())
}

// liveBytes is what is live, as far as runs have reported, large blocks included. p.mu is held.
func (p *Pool) liveBytes() int64 { return p.live + p.largeBytes.Load() }

// demand is called when a block of r has been freed, or when r has none left for somebody who wants one: with that block
// more is live than has been reported. It begins to tick when more than maxCached is kept. p.mu is held.
func (p *Pool) demand(r *run) {
	// The timer of a testing/synctest bubble may have ended with the bubble.
	if !p.ticking || p.tickBubble != 0 && p.tickBubble != bubble() {
		if p.MaxCached < 0 || p.cached <= p.maxCached() {
			return
		}
		p.ticking, p.tickBubble = true, bubble()
		p.tickAgain()
	}
	p.peaks[0] = max(p.peaks[0], p.liveBytes()+1<<r.shift)
}

// demandPeriod is how long what was live counts as demand, at least; at most twice as long.
const demandPeriod = time.Second

// tickAgain calls tick after demandPeriod. What an earlier call has planned becomes void. p.mu is held.
func (p *Pool) tickAgain() {
	p.ticks++
	n := p.ticks
	time.AfterFunc(demandPeriod, func() { p.tick(n) }) // not a timer that is set again: that panics between bubbles
}

// tick forgets what was live more than demandPeriod ago, and gives back what was kept for that. It ends
// when there is nothing more to forget, and nothing can be given back. It is tick number n.
func (p *Pool) tick(n int) {
	p.mu.Lock()
	if n != p.ticks {
		p.mu.Unlock()
		return
	}
	p.peaks[0], p.peaks[1] = p.liveBytes(), p.peaks[0]
	before, chunks := p.cached, slices.Clone(p.chunks)
	p.mu.Unlock()
	for _, c := range chunks {
		p.mu.Lock()
		for r := range c.all() {
			p.report(r)
		}
		p.shedChunk(c, nil, p.mostCached())
		p.mu.Unlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if n != p.ticks {
		return
	}
	forgotten := max(p.peaks[0], p.peaks[1]) <= p.liveBytes()
	if p.closed || forgotten && (p.cached <= p.maxCached() || p.cached >= before) {
		p.ticking, p.peaks = false, [2]int64{}
		return
	}
	p.tickAgain()
}

// Trim gives the memory of all freed blocks back to the operating system, and the
// address space that holds no block. Afterwards the resident memory is that of the live
// blocks. It takes about a system call for each group of adjacent free blocks, and may
// run while other goroutines allocate and free. The error wraps the operating system's;
// nothing is lost.
func (p *Pool) Trim() error {
	p.mu.Lock()
	p.releaseCurrent()
	chunks := slices.Clone(p.chunks)
	p.mu.Unlock()
	var failed error
	for _, c := range chunks {
		p.mu.Lock()
		for r := range c.all() {
			failed = cmp.Or(p.trimRun(r), failed)
		}
		p.mu.Unlock()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	failed = cmp.Or(p.release(), failed)
	if failed != nil {
		return fmt.Errorf("blockalloc: Pool.Trim: %w", failed)
	}
	return nil
}

// trimRun gives back the memory of r's free blocks, also of those that should have
// none: with huge pages, touching one block brings in memory for its neighbours. p.mu
// is held.
func (p *Pool) trimRun(r *run) error {
	if r.listed && r.free.Load() == r.all {
		return p.dissolve(r)
	}
	return p.purge(r, r.all)
}

// all yields each run of c once.
func (c *chunk) all() func(yield func(*run) bool) {
	return func(yield func(*run) bool) {
		for g := 0; g < granules; {
			r := c.runs[g].Load()
			if r == nil {
				g++
				continue
			}
			g += int(r.bytes() / granule)
			if !yield(r) {
				return
			}
		}
	}
}

// bytes is the size of a run.
func (r *run) bytes() uintptr { return uintptr(bits.OnesCount64(r.all)) << r.shift }

// releaseCurrent takes empty current runs from the shards. p.mu is held.
func (p *Pool) releaseCurrent() {
	for i := range p.shards {
		for class := range p.shards[i].current {
			current := &p.shards[i].current[class]
			if r := current.Load(); r != nil && r.free.Load() == r.all {
				current.Store(nil)
				p.pushPartial(r)
			}
		}
	}
}

// dissolveEmpty dissolves the listed runs without live blocks, and reports whether
// there were any. p.mu is held.
func (p *Pool) dissolveEmpty() (some bool) {
	for _, r := range p.partial {
		for r != nil {
			next := r.next
			if r.free.Load() == r.all && p.dissolve(r) == nil && r.dissolved {
				some = true
			}
			r = next
		}
	}
	return some
}

// Close gives all memory back to the operating system. While blocks are live it
// returns an error that wraps [ErrLive], and the Pool stays open. After it,
// Allocate fails with [ErrClosed].
func (p *Pool) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	for range 10 {
		s := p.stats()
		if s.LiveBlocks > 0 {
			return closeError("Pool", int(s.LiveBlocks), s.LiveBytes)
		}
		p.releaseCurrent()
		var failed error
		for _, c := range p.chunks {
			for r := range c.all() {
				failed = cmp.Or(p.trimRun(r), failed)
			}
		}
		if failed = cmp.Or(p.release(), failed); failed != nil {
			return fmt.Errorf("blockalloc: Pool.Close: %w", failed)
		}
		if p.closed = len(p.chunks) == 0; p.closed {
			return nil
		}
		// Another goroutine has allocated meanwhile, and perhaps freed again: look again.
	}
	return fmt.Errorf("blockalloc: Pool.Close: %w: other goroutines allocate and free all the time: stop them first", ErrLive)
}

// PoolStats are the figures of a [Pool]. All but LiveBlocks are bytes. Blocks that come
// straight from System count in Reserved, Committed, Carved and LiveBytes.
type PoolStats struct {
	Reserved   int64 // address space
	Committed  int64 // of it, accessible: what counts where the system limits that
	Carved     int64 // of it, in runs of blocks, live or free
	LiveBytes  int64 // of it, in live blocks
	Cached     int64 // in freed blocks that still have memory, for reuse; Trim gives it back
	LiveBlocks int64
}

// Fragmentation returns the fraction of carved memory, from 0 to 1, that is not in use.
// That memory serves blocks of the sizes it was carved for, and others only once a
// whole run is free.
func (s PoolStats) Fragmentation() float64 {
	if s.Carved == 0 {
		return 0
	}
	return 1 - float64(s.LiveBytes)/float64(s.Carved)
}

// Stats returns the Pool's figures, exact if no other goroutine uses it. It visits
// every run, some nanoseconds each. Meanwhile those who need a new run wait.
func (p *Pool) Stats() PoolStats {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.stats()
}

func (p *Pool) stats() PoolStats {
	large := p.largeBytes.Load()
	s := PoolStats{Reserved: large, Committed: large, Carved: large, LiveBytes: large, LiveBlocks: p.largeBlocks.Load()}
	for _, c := range p.chunks {
		s.Reserved += chunkSize
		s.Committed += int64(c.committed)
		for r := range c.all() {
			free := r.free.Load()
			s.Carved += int64(r.bytes())
			s.LiveBlocks += int64(bits.OnesCount64(r.all &^ free))
			s.LiveBytes += int64(bits.OnesCount64(r.all&^free)) << r.shift
			s.Cached += int64(r.dirty(free)) << r.shift
		}
	}
	return s
}
