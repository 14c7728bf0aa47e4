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
// A block is aligned to its granted size. Its memory is not zeroed. An operation costs
// one atomic instruction and some loads if the goroutine's shard has a block at hand:
// it takes no lock, and writes no cache line that another processor writes. A shard
// takes a lock when it has used up a run of blocks: 64, or as many as fit 4 MiB. So
// does the first free into such a run. A Pool takes 36 KiB, and 128 B for each run. A
// free of a block that is not live is an error, found in constant time, unless the
// block was allocated again meanwhile.
//
// Freed blocks keep their memory up to MaxCached bytes. It looks only now and then, and
// so may keep a sixteenth of what it has carved beyond that. The rest goes back to the
// operating system at once, by MADV_DONTNEED on Linux. MADV_FREE would make reuse
// cheaper, but the resident size, which people and containers judge by, would fall only
// when the machine is short of memory. The other Unixes have no better. [Pool.Trim]
// gives back all of it, and address space too.
//
// The zero Pool is ready, and must not be copied. It is not collected as garbage: close
// it. Several goroutines may use it at once.
type Pool struct {
	// MaxCached is how many bytes of freed blocks keep their memory. Zero means 64 MiB; a
	// negative number means none. Do not change it once the Pool is in use.
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
	hand    int    // the chunk from which memory was given back last

	//lint:ignore U1000 used on platforms that have only the Go heap
	heap                    poolHeap
	largeBlocks, largeBytes atomic.Int64
}

var (
	_ Allocator = (*Pool)(nil)
	_ Owner     = (*Pool)(nil)
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
				if i := bits.TrailingZeros64(free); r.settled(i) || r.settle(i) {
					return Block{r.block(i), 1 << (shift % 64), l.Align}, nil
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
			if ptr := r.take(); ptr != nil {
				return Block{ptr, 1 << shift, l.Align}, nil
			}
		}
		ptr, err := p.refill(current, shift)
		if err != nil {
			return Block{}, allocateError("Pool", l, err)
		}
		if ptr != nil {
			return Block{ptr, 1 << shift, l.Align}, nil
		}
	}
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
	p.largeBytes.Add(int64(b.size))
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
		p.freed(r, free)
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
			p.freed(r, free)
			return nil
		}
	}
}

// freeOther frees a block that is in no run, or says why it cannot.
func (p *Pool) freeOther(b Block) error {
	if err := p.checkOther(b); err != nil {
		return freeError("Pool", b, err)
	}
	err := p.large().Free(b)
	if err == nil {
		p.largeBlocks.Add(-1)
		p.largeBytes.Add(-int64(b.size))
	}
	return err
}

// checkOther returns nil if b, which is in no run, is live.
func (p *Pool) checkOther(b Block) error {
	if c := p.table.load(b.Addr()); c != nil {
		r := c.run(b.Addr())
		switch {
		case r == nil:
			return errTooLate // its run was empty and has been dissolved
		case b.size == 1<<r.shift:
			return fmt.Errorf("%w: it points into another block: free the Block that was allocated", ErrNotOwned)
		}
		return fmt.Errorf("%w: the block at this address has %d B: free the Block that was allocated", ErrNotOwned, uintptr(1)<<r.shift)
	}
	return p.large().live.check(b)
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
		return r.live(bit)
	}
	return p.checkOther(b) == nil
}

// Reallocate keeps b in place if blocks of its size serve the new size, and otherwise
// copies it into a new block.
func (p *Pool) Reallocate(b Block, size uintptr) (Block, error) {
	n, err := p.reallocate(b, size)
	if err != nil {
		return b, reallocateError("Pool", b, size, err)
	}
	return n, nil
}

func (p *Pool) reallocate(b Block, size uintptr) (Block, error) {
	if b.IsZero() {
		return b, errEmptyReallocate
	}
	if err := (Layout{size, b.align}).Check(); err != nil {
		return b, err
	}
	larger := max(size, b.align)
	if r, bit := p.find(b); r != nil {
		if !r.live(bit) {
			return b, errTooLate
		}
		if size > 0 && larger <= chunkSize && classShift(larger) == int(r.shift) {
			return b, nil
		}
		return move(p, b, size)
	}
	if err := p.checkOther(b); err != nil {
		return b, err
	}
	if size == 0 || larger <= chunkSize {
		return move(p, b, size)
	}
	n, err := p.large().Reallocate(b, size)
	if errors.Is(err, ErrOutOfMemory) && p.Trim() == nil {
		n, err = p.large().Reallocate(b, size)
	}
	if err == nil {
		p.largeBytes.Add(int64(n.size) - int64(b.size))
	}
	return n, err
}

// refill replaces the current run by one with free blocks of 1<<shift bytes, if it has
// none itself. If there is none to be had, it returns a block of another shard's run.
func (p *Pool) refill(current *atomic.Pointer[run], shift int) (unsafe.Pointer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, ErrClosed
	}
	if r := current.Load(); r != nil && !p.exhausted(r) {
		return nil, nil // a block was freed meanwhile, or another goroutine was here
	}
	current.Store(nil)
	r := p.popPartial(shift)
	if r == nil {
		var err error
		if r, err = p.carve(shift); err != nil {
			if r = p.popPartial(shift); r == nil { // one that another shard has left
				if ptr := p.steal(shift); ptr != nil {
					return ptr, nil
				}
				return nil, fmt.Errorf("%w: %w", ErrOutOfMemory, err)
			}
		}
	}
	current.Store(r)
	return nil, nil
}

// exhausted reports whether r has no free block, and if so marks it as full, until one
// is freed. p.mu is held.
func (p *Pool) exhausted(r *run) bool {
	if r.free.Load() != 0 {
		return false
	}
	// Say that r is full before looking again: a free at the same time is either seen
	// here, or sees that r is full. (qemu does not keep a Store of arm64 before a Load.)
	r.full.Swap(true)
	if r.free.Load() != 0 {
		r.full.Store(false)
		return false
	}
	p.report(r)
	return true
}

// steal takes a block from the current runs of other shards, as a last resort.
func (p *Pool) steal(shift int) unsafe.Pointer {
	for i := range p.shards {
		if r := p.shards[i].current[shift-minPoolShift].Load(); r != nil {
			if ptr := r.take(); ptr != nil {
				return ptr
			}
		}
	}
	return nil
}

// pushPartial and popPartial keep the list of runs that have free blocks and are no
// shard's current one. p.mu is held.
func (p *Pool) pushPartial(r *run) {
	head := &p.partial[int(r.shift)-minPoolShift]
	r.prev, r.next, r.listed = nil, *head, true
	if r.next != nil {
		r.next.prev = r
	}
	*head = r
}

func (p *Pool) popPartial(shift int) *run {
	for r := p.partial[shift-minPoolShift]; r != nil; r = p.partial[shift-minPoolShift] {
		p.unlist(r)
		if !p.exhausted(r) { // by a goroutine that found it when it was current
			return r
		}
	}
	return nil
}

func (p *Pool) unlist(r *run) {
	if r.prev != nil {
		r.prev.next = r.next
	} else {
		p.partial[int(r.shift)-minPoolShift] = r.next
	}
	if r.next != nil {
		r.next.prev = r.prev
	}
	r.prev, r.next, r.listed = nil, nil, false
}
