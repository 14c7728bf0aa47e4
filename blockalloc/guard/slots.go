package guard

import (
	"math"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/internal/pages"
)

// slots are the places for guarded blocks, and what decides on who gets one.
type slots struct {
	likely     atomic.Uint64 // for each byte of a block: at least the probability to be guarded, in units of 1/(1<<32)
	rate       atomic.Int64
	base, size uintptr  // of the address space
	classes    []*class // by size

	maxDrawn uintptr // bytes

	onReport func(*debug.Report)
	crash    bool
	reports  atomic.Int64
	live     *atomic.Int64 // how many blocks are live; the cleanup has it when the slots are gone

	mu                sync.Mutex // guards what follows, and the classes
	liveBytes, unused int64      // of live blocks: what was asked for, and what they leave of their pages
	guarded           int64      // blocks, ever
	full, tooLarge    int64      // blocks that were chosen, and had no slot
}

const maxSize = 64 << 20 // of a guarded block

// kinds are the classes of slots, by how many pages a slot has, the first of which is never accessible.
// They get this share, in sixteenths, of the slots. Small slots share page tables.
var kinds = [...]struct{ pages, share uintptr }{{16, 10}, {256, 4}, {4096, 1}, {32768, 1}}

// kindsFit is how many of them there are: an address space of 32 bits has no room for the others.
const kindsFit = 2 + 2*(bits.UintSize>>6)

// newSlots reserves address space for as many slots as the options allow. If that cannot be had, there are only
// smaller ones, or none.
func newSlots(o Options) *slots {
	s := &slots{maxDrawn: maxSize, onReport: o.OnReport, crash: o.Crash, live: new(atomic.Int64)}
	if o.MaxDrawn > 0 {
		s.maxDrawn = uintptr(o.MaxDrawn)
	}
	if o.Memory <= 0 {
		o.Memory = 1 << 20
	}
	n := uintptr(min(max(o.Memory/int64(perSlot+pages.Size/2), 8), 16<<10))
	for of := kindsFit; of > 0 && pages.Supported; of-- {
		if s.reserve(n, of) {
			break
		}
	}
	return s
}

// reserve reserves the address space for n slots of the first kinds, so many of them.
func (s *slots) reserve(n uintptr, of int) bool {
	var size uintptr
	for _, k := range kinds[:of] {
		stride, count := k.pages*pages.Size, max(n*k.share/16, 2)
		s.classes = append(s.classes, newClass(stride, int(count)))
		size += stride * count
	}
	largest := s.classes[of-1].stride
	p, err := pages.Reserve(size+pages.Size, largest) // and a page that is never accessible
	if err != nil {
		s.classes = nil
		return false
	}
	s.base, s.size = uintptr(p), size
	at := p
	for i := range s.classes { // the largest first, so that each slot is aligned to its size
		c := s.classes[of-1-i]
		c.base = at
		at = unsafe.Add(at, c.stride*uintptr(len(c.slots)))
	}
	runtime.AddCleanup(s, func(r reservation) { r.release() }, reservation{p, size + pages.Size, s.live})
	return true
}

// A reservation is given back when its slots are collected. Blocks that are live then stay where they are.
type reservation struct {
	base unsafe.Pointer
	size uintptr
	live *atomic.Int64
}

func (r reservation) release() {
	if r.live.Load() == 0 {
		_ = pages.Unmap(r.base, r.size)
	}
}

func (s *slots) setRate(rate int) {
	likely := uint64(0)
	if s.size == 0 { // nothing can be guarded
		rate = 0
	}
	if rate > 0 {
		likely = (1<<32-1)/uint64(rate) + 1
	}
	s.rate.Store(int64(rate))
	s.likely.Store(likely)
}

// isLikely is the first look at a number that is drawn for size bytes: it is true for few. It cannot overflow for
// sizes that have a slot.
func (s *slots) isLikely(drawn uint32, size uintptr) bool {
	return uint64(drawn) <= uint64(size)*s.likely.Load()
}

// chooses reports whether the number chooses size bytes, with the probability 1-exp(-size/rate), or that of maxDrawn bytes. That
// is what walking through all bytes by distances that are exponentially distributed comes to, as heapprofile does.
func (s *slots) chooses(drawn uint32, size uintptr) bool {
	rate := s.rate.Load()
	size = min(size, s.maxDrawn)
	return rate == 1 || rate > 1 && float64(drawn) < -math.Expm1(-float64(size)/float64(rate))*(1<<32)
}

// draw returns a guarded block for l, if a number that was drawn for size bytes chooses one and there is a slot.
func (s *slots) draw(drawn uint32, size uintptr, l blockalloc.Layout) (blockalloc.Block, bool) {
	if !s.chooses(drawn, size) || l.Size == 0 || l.Check() != nil {
		return blockalloc.Block{}, false
	}
	return s.allocate(l, drawn&1 == 0, here())
}

// class returns the slots that l fits in, nil if there are none.
func (s *slots) class(l blockalloc.Layout) *class {
	if l.Size > maxSize {
		return nil
	}
	for _, c := range s.classes {
		if l.Align < c.stride && max(l.Align, pages.Size)+pages.RoundUp(l.Size, pages.Size) <= c.stride {
			return c
		}
	}
	return nil
}

// allocate returns a guarded block, at the end of its pages or at their start.
func (s *slots) allocate(l blockalloc.Layout, atEnd bool, now stack) (blockalloc.Block, bool) {
	c := s.class(l)
	at := s.take(c)
	if at == nil {
		return blockalloc.Block{}, false
	}
	block, from, ok := at.open(c.start(at), l, atEnd) // without the lock: nobody else has the slot
	s.mu.Lock()
	defer s.mu.Unlock()
	if !ok {
		s.full++
		c.put(at)
		return blockalloc.Block{}, false
	}
	at.state, at.block, at.from, at.allocated, at.freed = live, block, from, now, stack{}
	s.account(at, 1)
	s.guarded++
	return block, true
}

// take returns a slot of a class, which may be nil, or counts that there is none.
func (s *slots) take(c *class) *slot {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c == nil {
		s.tooLarge++
		return nil
	}
	at := c.take()
	if at == nil {
		s.full++
	}
	return at
}

// account counts a block that is live, or no longer if by is -1. s.mu is held.
func (s *slots) account(at *slot, by int64) {
	s.live.Add(by)
	s.liveBytes += by * int64(at.block.Size())
	s.unused += by * int64(at.from.Size()-at.block.Size())
}

// at returns the slot that addr, which is in the range of all of them, is in.
func (s *slots) at(addr uintptr) (c *class, i int) {
	for _, c = range s.classes {
		if i := (addr - uintptr(c.base)) / c.stride; i < uintptr(len(c.slots)) {
			return c, int(i)
		}
	}
	panic("guard: an address in no slot")
}

// find returns the live block that holds the byte at addr.
func (s *slots) find(addr uintptr) (blockalloc.Block, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, i := s.at(addr)
	if at := &c.slots[i]; at.state == live && at.holds(addr) {
		return at.block, true
	}
	return blockalloc.Block{}, false
}

// claim ends the life of b. Then only the caller has the slot, up to retire or unclaim.
func (s *slots) claim(op string, b blockalloc.Block, now stack) (*slot, *debug.Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, report := s.lookup(op, b, now)
	if report != nil {
		return nil, report
	}
	at.state, at.freed = dead, now
	s.account(at, -1)
	return at, nil
}

// unclaim undoes claim.
func (s *slots) unclaim(at *slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at.state, at.freed = live, stack{}
	s.account(at, 1)
}

// check returns the live block that b is.
func (s *slots) check(op string, b blockalloc.Block, now stack) (blockalloc.Block, *debug.Report) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at, report := s.lookup(op, b, now)
	if report != nil {
		return b, report
	}
	return at.block, nil
}

// lookup returns the slot of b, which is live, or a report. s.mu is held.
func (s *slots) lookup(op string, b blockalloc.Block, now stack) (*slot, *debug.Report) {
	c, i := s.at(b.Addr())
	at := &c.slots[i]
	begins := at.block.Addr() == b.Addr()
	switch {
	case at.state == live && begins && b.Is(at.block):
		return at, nil
	case at.state == live && begins:
		return nil, newReport(debug.WrongSize, op, at, b, now)
	case at.state == dead && begins:
		return nil, newReport(debug.DoubleFree, op, at, b, now)
	case (at.state == live || at.state == dead) && at.holds(b.Addr()):
		report := newReport(debug.Interior, op, at, b, now)
		report.Offset = int(b.Addr() - at.block.Addr())
		return nil, report
	}
	return nil, newReport(debug.Foreign, op, nil, b, now)
}

// retire makes the memory of a claimed block inaccessible, and puts its slot behind all others. It reports
// what has overwritten the surroundings of the block.
func (s *slots) retire(op string, at *slot, now stack) {
	report := at.inspect(op, now)
	at.sealed = pages.Seal(at.from.Pointer(), at.from.Size()) == nil
	s.release(at)
	if report != nil {
		s.deliver(report)
	}
}

// undo gives back a block that nobody was given.
func (s *slots) undo(b blockalloc.Block) {
	if at, report := s.claim("", b, stack{}); report == nil {
		s.retire("", at, stack{})
	}
}

// release puts a slot behind all others of its class.
func (s *slots) release(at *slot) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, _ := s.at(at.block.Addr())
	c.put(at)
}
