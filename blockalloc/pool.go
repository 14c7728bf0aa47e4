package blockalloc

import (
	"errors"
	"fmt"
	"math/bits"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/shard"
)

// Pool is an [Allocator] for blocks from a page to 64 MiB (4 MiB with 32-bit
// addresses). It rounds sizes up to powers of two. It carves them from large
// reservations of address space, so that many blocks take few mappings, and keeps freed
// blocks for reuse. Larger blocks come straight from System. It is the allocator to
// start with: see [Default].
//
// A block is aligned to its granted size. Its memory is zeroed if [Layout].Zeroed asks for
// that: a block that has no memory behind it yet is not touched. An operation costs
// one atomic instruction and some loads if the goroutine's shard has a block at hand:
// it takes no lock, and writes no cache line that another processor writes. A shard
// takes a lock when it has used up a run of blocks: 64, or as many as fit 4 MiB. So
// does the first free into such a run. Blocks from 4 MiB, of which a run has one, go from shard to shard as
// they are needed. A Pool takes 36 KiB (92 where it has only the Go
// heap), and 640 B for each run. A free of a block that is not live is an error, found in
// constant time, unless the block was allocated again meanwhile.
//
// Freed blocks keep their memory up to MaxCached bytes, and more while it is in demand: live
// blocks and what is kept take at most MaxCached more than the live blocks took at their
// peak in the last second or two. What has had no demand for so long is given back then, by
// a timer that runs only while more than MaxCached is kept. The Pool looks only now and then,
// and so may keep a sixteenth of what it has carved beyond that. The rest goes back to the
// operating system at once, by MADV_DONTNEED on Linux. MADV_FREE would make reuse
// cheaper, but the resident size, which people and containers judge by, would fall only
// when the machine is short of memory. The other Unixes have no better. [Pool.Trim]
// gives back all of it, and address space too.
//
// The zero Pool is ready, and must not be copied. It is not collected as garbage: close
// it. Several goroutines may use it at once.
type Pool struct {
	// MaxCached is how many bytes of freed blocks keep their memory also when there is no
	// demand for it. Zero means 64 MiB; a negative number means none, ever. Do not change it
	// once the Pool is in use.
	MaxCached int64

	// System serves the blocks that are too large for the Pool. Its options apply to the
	// Pool's own memory as well. Do not change them once the Pool is in use.
	System System

	shards [shard.Max]poolShard
	table  chunkTable

	mu      sync.Mutex // guards what follows, and the fields of runs and chunks that say so
	closed  bool
	pages   pageSource // nil until the first use
	partial [poolClasses]*run
	arenas  []*arena
	chunks  []*chunk
	room    []int8 // of each chunk: log2 of the granules in its largest gap, -1 for none
	cached  int64  // bytes of freed blocks with memory behind them, as far as runs have reported
	live    int64  // bytes of live blocks, as far as runs have reported
	hand    int    // the chunk from which memory was given back last

	// What was live at most since tick last ran, and in the second before, while it runs.
	ticking    bool
	peaks      [2]int64
	ticks      int // how often a tick was planned
	tickBubble int // the synctest bubble that the next one is planned in

	//lint:ignore U1000 used on platforms that have only the Go heap
	heap                    poolHeap
	largeBlocks, largeBytes atomic.Int64
}

var (
	_ Allocator = (*Pool)(nil)
	_ Owner     = (*Pool)(nil)
	_ Resizer   = (*Pool)(nil)
)

// A poolShard has the runs that some of the goroutines allocate from: one for each
// class, which no other shard has. It fills whole cache lines.
type poolShard struct {
	current [poolClasses]atomic.Pointer[run]
	_       [(128 - poolClasses*int(unsafe.Sizeof(uintptr(0)))%128) % 128]byte
}

// The classes of a Pool are powers of two from the page to the chunk.
const (
	minPoolShift = 12
	poolClasses  = chunkShift - minPoolShift + 1
)

var (
	pageShift = max(minPoolShift, bits.Len(uint(pageSize-1)))

	errTooLate = fmt.Errorf("%w: free a block once", ErrDoubleFree)
)

// classShift returns log2 of the size of the blocks that serve size bytes.
func classShift(size uintptr) int {
	return max(bits.Len(uint(size-1)|1<<(minPoolShift-1)), pageShift)
}

// Allocate returns a block of the smallest power of two that is at least l.Size and
// l.Align. Above 64 MiB it returns whole pages.
func (p *Pool) Allocate(l Layout) (Block, error) {
	size := max(l.Size, l.Align)
	if l.Size == 0 || l.Align&(l.Align-1) != 0 || l.Align == 0 || size > chunkSize {
		return p.allocateOther(l)
	}
	shift := classShift(size)
	slot, mine := shard.All.Pick()
	current := &p.shards[mine%shard.Max].current[shift-minPoolShift]
	if r := current.Load(); r != nil {
		if free := r.free.Load(); free != 0 {
			if r.free.CompareAndSwap(free, free&(free-1)) {
				i := bits.TrailingZeros64(free)
				if !l.Zeroed && r.settled(i) {
					return r.plain(i, l), nil
				}
				if zero, ok := r.settle(i); ok {
					return r.grant(i, zero, l), nil
				}
			}
			shard.All.Collided(slot)
		}
	}
	return p.allocateAgain(l, current, shift)
}

// allocateAgain allocates where the current run has no free block, or other goroutines
// were faster.
func (p *Pool) allocateAgain(l Layout, current *atomic.Pointer[run], shift int) (Block, error) {
	for {
		if r := current.Load(); r != nil {
			if ptr, zero := r.take(); ptr != nil {
				return p.grant(ptr, zero, l), nil
			}
		}
		ptr, zero, err := p.refill(current, shift)
		if err != nil {
			return Block{}, allocateError("Pool", l, err)
		}
		if ptr != nil {
			return p.grant(ptr, zero, l), nil
		}
	}
}

// grant returns the block at ptr, which the caller has just taken, as the answer to l.
func (p *Pool) grant(ptr unsafe.Pointer, zero bool, l Layout) Block {
	r := p.table.load(uintptr(ptr)).run(uintptr(ptr))
	return r.grant(r.index(uintptr(ptr)), zero, l)
}

// allocateOther serves a request that no run serves.
func (p *Pool) allocateOther(l Layout) (Block, error) {
	if err := l.Check(); err != nil {
		return Block{}, allocateError("Pool", l, err)
	}
	if l.Size == 0 {
		return Block{}, nil
	}
	p.mu.Lock()
	closed := p.closed
	if !closed {
		p.largeBlocks.Add(1) // so that Close sees it
	}
	p.mu.Unlock()
	if closed {
		return Block{}, allocateError("Pool", l, ErrClosed)
	}
	b, err := p.large().Allocate(l)
	if errors.Is(err, ErrOutOfMemory) && p.Trim() == nil { // what is cached may be what is missing
		b, err = p.large().Allocate(l)
	}
	if err != nil {
		p.largeBlocks.Add(-1)
		return Block{}, err
	}
	p.largeGrew(int64(b.size))
	return b, nil
}

// Free makes b's memory available to later allocations.
func (p *Pool) Free(b Block) error {
	if b.IsZero() {
		return nil
	}
	r, bit := p.find(b)
	if r == nil {
		return p.freeOther(b)
	}
	// A clear bit means that the block is live, or that its run was dissolved and another
	// goroutine is about to find out: then the block was frozen before the bit was cleared.
	free := r.free.Load()
	if free&bit != 0 || r.frozen.Load()&bit != 0 || !r.free.CompareAndSwap(free, free|bit) {
		return p.freeAgain(r, bit, b)
	}
	if free == 0 || r.dirty(free|bit) >= r.reportAt.Load() {
		p.freed(r, bit, free)
	}
	return nil
}

// freeAgain frees a block for which Free's first look was not enough.
func (p *Pool) freeAgain(r *run, bit uint64, b Block) error {
	for {
		free := r.free.Load()
		if free&bit != 0 || r.frozen.Load()&bit != 0 && p.dissolved(r) {
			return freeError("Pool", b, errTooLate)
		}
		if r.frozen.Load()&bit == 0 && r.free.CompareAndSwap(free, free|bit) {
			p.freed(r, bit, free)
			return nil
		}
	}
}

// freeOther frees a block that is in no run, or says why it cannot.
func (p *Pool) freeOther(b Block) error {
	exact, err := p.exact(b)
	switch {
	case err != nil:
		return freeError("Pool", b, err)
	case exact.size != b.size:
		return p.Free(exact)
	}
	err = p.large().Free(b)
	if err == nil {
		p.largeBlocks.Add(-1)
		p.largeBytes.Add(-int64(b.size))
	}
	return err
}

// exact returns b, for which find has found nothing, with the size that was granted. In a run that is
// another one than b's, which [FromRaw] made of a size that was asked for or more.
func (p *Pool) exact(b Block) (Block, error) {
	c := p.table.load(b.Addr())
	if c == nil {
		return p.large().live.check(b)
	}
	r := c.run(b.Addr())
	switch {
	case r == nil:
		return b, errTooLate // its run was empty and has been dissolved
	case (b.Addr()-uintptr(r.base))&(1<<r.shift-1) != 0:
		return b, fmt.Errorf("%w: it points into another block: free the Block that was allocated", ErrNotOwned)
	}
	i := r.index(b.Addr())
	if !r.isLive(1 << i) {
		return b, errTooLate
	}
	live := r.live(i)
	if !b.Is(live) {
		return b, fmt.Errorf("%w: the block at this address has %d B: free the Block that was allocated", ErrNotOwned, live.size)
	}
	return live, nil
}

// find returns the run that has a block of b's address and size, and that block's bit.
// It returns nil if there is none.
func (p *Pool) find(b Block) (*run, uint64) {
	c := p.table.load(b.Addr())
	if c == nil {
		return nil, 0
	}
	r := c.run(b.Addr())
	if r == nil {
		return nil, 0
	}
	offset := b.Addr() - uintptr(r.base)
	if b.size != 1<<(r.shift%64) || offset&(b.size-1) != 0 {
		return nil, 0
	}
	return r, 1 << (offset >> (r.shift % 64) % 64)
}

// Owns reports whether b is a live block of this Pool, in constant time.
func (p *Pool) Owns(b Block) bool {
	if b.IsZero() {
		return false
	}
	if r, bit := p.find(b); r != nil {
		return r.isLive(bit)
	}
	exact, err := p.exact(b)
	return err == nil && (exact.size == b.size || p.Owns(exact))
}

// Find returns the live block of this Pool that holds the byte at p: in a few nanoseconds, and where none of
// the Pool's chunks is as that of [System] does.
func (p *Pool) Find(ptr unsafe.Pointer) (Block, bool) {
	c := p.table.load(uintptr(ptr))
	if c == nil {
		return p.large().Find(ptr)
	}
	r := c.run(uintptr(ptr))
	if r == nil {
		return Block{}, false
	}
	i := r.index(uintptr(ptr))
	if !r.isLive(1 << i) {
		return Block{}, false
	}
	return r.live(i), true
}

// Reallocate keeps b in place if blocks of its size serve the new size, and otherwise
// copies it into a new block.
func (p *Pool) Reallocate(b Block, size uintptr) (Block, error) {
	n, err := p.reallocate(b, size, true)
	if err != nil {
		return b, reallocateError("Pool", b, size, err)
	}
	return n, nil
}

// Resize keeps b in place if blocks of its size serve the new size, or if System can resize a block
// that came from there.
func (p *Pool) Resize(b Block, size uintptr) (Block, error) {
	n, err := p.reallocate(b, size, false)
	if err != nil {
		return b, resizeError("Pool", b, size, err)
	}
	return n, nil
}

// reallocate keeps b in place if it can, and otherwise copies it if that is allowed.
func (p *Pool) reallocate(b Block, size uintptr, copies bool) (Block, error) {
	if b.IsZero() {
		return b, errEmptyReallocate
	}
	l := b.layout(size)
	if err := l.Check(); err != nil {
		return b, err
	}
	larger := max(size, l.Align)
	if r, bit := p.find(b); r != nil {
		switch {
		case !r.isLive(bit):
			return b, errTooLate
		case size > 0 && larger <= chunkSize && classShift(larger) == int(r.shift):
			return r.again(r.index(b.Addr()), l), nil
		}
	} else if exact, err := p.exact(b); err != nil {
		return b, err
	} else if exact.size != b.size {
		exact.align |= b.align & zeroed
		n, err := p.reallocate(exact, size, copies)
		if err == nil {
			n.clearSlack(b, exact)
		}
		return n, err
	} else if size > 0 && larger > chunkSize {
		return p.reallocateLarge(b, size, copies)
	}
	if copies {
		return move(p, b, size)
	}
	if _, err := checkResize(b, size); err != nil {
		return b, err
	}
	return b, errCopy
}

// reallocateLarge is reallocate of a block of System's, to a size that no run has.
func (p *Pool) reallocateLarge(b Block, size uintptr, copies bool) (n Block, err error) {
	if copies {
		n, err = p.large().Reallocate(b, size)
		if errors.Is(err, ErrOutOfMemory) && p.Trim() == nil {
			n, err = p.large().Reallocate(b, size)
		}
	} else {
		n, err = p.large().Resize(b, size)
	}
	if err == nil {
		p.largeGrew(int64(n.size) - int64(b.size))
	}
	return n, err
}

// largeGrew counts by how many bytes more of large blocks are live. Others' memory may have to go back for them.
func (p *Pool) largeGrew(size int64) {
	p.largeBytes.Add(size)
	if size > 0 {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.shed(nil)
	}
}
