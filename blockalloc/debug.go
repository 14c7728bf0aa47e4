package blockalloc

import (
	"errors"
	"sync"
	"sync/atomic"

	"github.com/alloctrace/alloctrace/internal/pages"
)

// Debug is an [Allocator] for tests that makes errors with memory visible. It takes
// its memory from a parent, or with [DebugOptions].Guard from the operating system,
// keeps a record of every block, and finds:
//
//   - Frees and reallocations of what is not a live block of this Debug: freed before
//     ([ErrDoubleFree]), allocated elsewhere, of another size, or beginning inside a
//     block ([ErrNotOwned]). The block stays as it is.
//   - Writes past the end of a block ([ErrOverrun]) and before its start
//     ([ErrUnderrun]), when it is freed or reallocated, by Check and by Close.
//   - Writes to a block after it was freed ([ErrUseAfterFree]), when it leaves the
//     quarantine, by Check and by Close; and with Guard any access, at once.
//   - What is live at Close ([ErrLive]), by where it was allocated.
//
// Every such error is or wraps a [DebugReport], which says which block it is, who
// allocated it, who freed it, and who does what now.
//
// A reallocation always moves the block, so that pointers to the old place are
// found. Blocks have exactly the size that was asked for. Where a block is
// damaged, Free and Reallocate report that, mend the damage, and leave the block live:
// to free it again succeeds. A block that was written to after it was freed is
// withheld from the parent, for others not to suffer, until Close has reported it.
// What nobody was told of by an error of his own, for it was found when another block
// was freed, is kept for Check and Close, the first hundred of them, and told to
// DebugOptions.Report at once.
//
// A free does not fail because the parent's Free does: the block is kept and given
// back by Close, which tells of the error if it fails again. If the parent has no more
// memory, the quarantine is given back before Debug says so.
//
// Debug cannot find a write of what is there already, or, without Guard, reads,
// writes that jump over the canaries, and the use of a block through a stale
// copy once another block has its place, which the quarantine delays. Where the
// program is built with -asan, which takes cgo and gcc or clang, AddressSanitizer ends
// it at the first access, also a read, and in C code too, to what is around a block or
// in quarantine, with a report of its own; ASAN_OPTIONS=allow_user_poisoning=0 leaves
// such accesses to Debug.
//
// What each option adds to an Allocate and Free of 64 bytes, or of 4 KiB, in atomic
// additions of some 8 ns each, measured on Linux amd64, and in memory:
//
//	             64 B   4 KiB  memory
//	records        50      50  200 B a live block, and up to 170 KiB of history
//	Canary          5       5  twice its size a block, the first rounded up to the alignment
//	Poison         10      50  none
//	ZeroFree        5      15  none
//	Quarantine     15      15  its size, and 200 B a block
//	Stack          25      25  8 B a frame, for each of two stacks a block
//	Guard         600     600  whole pages, and three mappings a live block, one in quarantine
//	the default   105     280
//	the most     1800    1750
//
// Debug may be used by several goroutines at once if its parent may; records have
// one lock. Close it to have the memory back.
type Debug struct {
	parent  Allocator
	options DebugOptions // with defaults in place

	// gate is held for reading by operations and for writing by Close, which thereby
	// meets no block on its way to the parent or into quarantine.
	gate   sync.RWMutex
	closed bool

	guarded atomic.Int64 // blocks with a mapping of their own, in quarantine too

	mu         sync.Mutex // guards what follows
	blocks     map[uintptr]*debugBlock
	serial     uint64
	liveBlocks int
	liveBytes  int64
	quarantine debugQuarantine
	gone       debugHistory
	findings   []error // of which no operation has told, but for Check
	moreFound  int     // findings that there was no place for

	tellMu sync.Mutex
	untold []*DebugReport // to DebugOptions.Report
}

// DebugOptions says what a [Debug] looks for. The zero DebugOptions is all but guard
// pages: what is found is found wherever Go runs. The mildest keeps records alone:
//
//	DebugOptions{Canary: -1, NoPoison: true, Quarantine: -1, Stack: -1}
//
// and the most paranoid is
//
//	DebugOptions{Guard: true, ZeroFree: true, Quarantine: 1 << 30, QuarantineBlocks: 10_000, Stack: 64}
type DebugOptions struct {
	// Guard puts each block into a mapping of its own from the operating system,
	// with an inaccessible page before and after, and so near the second that the
	// first byte past the end faults, as far as the alignment allows: what
	// remains on either side, less than a page, is made of canaries. In quarantine
	// the whole is inaccessible, and without memory behind it. The parent is
	// asked only once MaxGuarded blocks are mapped, where the operating system refuses a
	// mapping, and on the platforms that have none, which are those where [System] has
	// none. DebugStats.GuardedBlocks says how many have one. See [Debug.Catch].
	Guard bool

	// MaxGuarded is how many blocks, those in quarantine included, may have a mapping
	// at once; further ones come from the parent. Linux allows a process 65,530
	// mappings, three to a live block, and Go programs end where there are no more.
	// Zero means 16,384. All Debugs of a process together take no more than that
	// either, unless MaxGuarded is more.
	MaxGuarded int

	// Canary is how many bytes before and after each block have a pattern that is
	// checked. Zero means 16, the most is 64 KiB; a negative number means none.
	Canary int

	// NoPoison leaves memory as it is. Otherwise a fresh block is full of 0xcd, so
	// that nobody takes it for zeroed, and a freed one of 0xdd, which is checked
	// when it leaves the quarantine.
	NoPoison bool

	// Zeroed says that the parent promises zeroed memory. It is checked that blocks
	// are, which are then not poisoned but handed out zeroed: see [ErrNotZeroed].
	Zeroed bool

	// ZeroFree clears a block when it is freed, whatever NoPoison says, so that no
	// secret stays in memory: freed memory is then full of zeros and not of 0xdd.
	ZeroFree bool

	// Quarantine is how many bytes of freed blocks are kept from being used again.
	// Zero means 16 MiB; a negative number means none. A block that is larger is not
	// kept.
	Quarantine int64

	// QuarantineBlocks is how many freed blocks are kept at most. Zero means 1024.
	QuarantineBlocks int

	// Stack is how many frames are kept of who allocated and who freed a block. Zero
	// means 16, the most is 64; a negative number means none.
	Stack int

	// Report, if not nil, is called with all that is found, before the operation
	// that found it returns, and holding no lock. It may be called by several
	// goroutines at once.
	Report func(*DebugReport)
}

const (
	maxCanary     = 64 << 10
	maxDebugStack = 64
	maxFindings   = 100
)

var (
	_ Allocator = (*Debug)(nil)
	_ Owner     = (*Debug)(nil)
)

// NewDebug returns a Debug that takes memory from parent. It panics if parent is nil.
func NewDebug(parent Allocator, options DebugOptions) *Debug {
	if parent == nil {
		panic("blockalloc: NewDebug: the parent must not be nil: pass one, such as Default()")
	}
	o := options
	o.MaxGuarded = zeroMeans(o.MaxGuarded, defaultMaxGuarded)
	o.Canary = min(zeroMeans(o.Canary, 16), maxCanary)
	o.Quarantine = zeroMeans(o.Quarantine, 16<<20)
	o.QuarantineBlocks = zeroMeans(o.QuarantineBlocks, 1024)
	o.Stack = min(zeroMeans(o.Stack, 16), maxDebugStack)
	return &Debug{parent: parent, options: o, blocks: make(map[uintptr]*debugBlock)}
}

// zeroMeans returns n, or fallback if it is zero; what is negative is none.
func zeroMeans[T int | int64](n, fallback T) T {
	if n == 0 {
		return fallback
	}
	return max(n, 0)
}

// Allocate returns a block of exactly l.Size bytes.
func (d *Debug) Allocate(l Layout) (Block, error) {
	if err := l.Check(); err != nil {
		return Block{}, allocateError("Debug", l, err)
	}
	if l.Size == 0 {
		return Block{}, nil
	}
	stack := d.stack()
	var made Block
	var returns bool
	defer d.finish(&made, &returns)
	d.gate.RLock()
	defer d.gate.RUnlock()
	b, err := d.allocate("Allocate", l, stack)
	if err != nil && !isReport(err) {
		err = allocateError("Debug", l, err)
	}
	made, returns = b, true
	return b, err
}

func (d *Debug) allocate(op string, l Layout, now DebugStack) (Block, error) {
	if d.closed {
		return Block{}, ErrClosed
	}
	r, err := d.obtain(l)
	if isOutOfMemory(err) && d.dismissAll() {
		r, err = d.obtain(l)
	}
	if err == nil {
		err = d.prepare(op, r, now)
	}
	if err != nil {
		return Block{}, err
	}
	r.allocated = now
	d.mu.Lock()
	defer d.mu.Unlock()
	d.serial++
	r.serial = d.serial
	d.blocks[r.block.Addr()] = r
	d.liveBlocks++
	d.liveBytes += int64(l.Size)
	return r.block, nil
}

// prepare fills a fresh block as the options say.
func (d *Debug) prepare(op string, r *debugBlock, now DebugStack) error {
	if d.options.Zeroed && !r.guarded() {
		if hurt := differs(r.block.Bytes(), 0); hurt != nil {
			report := d.report(DebugNotZeroed, op, r, Block{}, now)
			report.set(hurt)
			r.dead = true
			return errors.Join(report, d.release(r))
		}
	}
	if !d.options.Zeroed && !d.options.NoPoison {
		fill(r.block.Bytes(), freshPoison)
	}
	r.mend()
	return nil
}

// Reallocate moves b, whatever the size.
func (d *Debug) Reallocate(b Block, size uintptr) (Block, error) {
	if b.IsZero() {
		return b, reallocateError("Debug", b, size, errEmptyReallocate)
	}
	l := Layout{size, b.align}
	if err := l.Check(); err != nil {
		return b, reallocateError("Debug", b, size, err)
	}
	stack := d.stack()
	var made Block
	var returns bool
	defer d.finish(&made, &returns)
	d.gate.RLock()
	defer d.gate.RUnlock()
	r, err := d.claim("Reallocate", b, stack)
	if err != nil {
		return b, err
	}
	if size > 0 {
		if made, err = d.allocateFor(r, l, stack); err != nil {
			if !isReport(err) {
				err = reallocateError("Debug", b, size, err)
			}
			return b, err
		}
		copy(made.Bytes(), b.Bytes())
	}
	d.retire(r)
	returns = true
	return made, nil
}

// allocateFor returns a block that is to take the place of r, which was claimed, or undoes
// that if there is none.
func (d *Debug) allocateFor(r *debugBlock, l Layout, now DebugStack) (b Block, err error) {
	defer func() {
		if b.IsZero() { // also if the parent panics or ends the goroutine
			d.unclaim(r)
		}
	}()
	return d.allocate("Reallocate", l, now)
}

// finish ends an operation that returns a block, if it has made one. If the operation does
// not return, because the parent or DebugOptions.Report panics or ends the goroutine, nobody
// has the block, and it is withheld.
func (d *Debug) finish(made *Block, returns *bool) {
	told := false
	defer func() {
		if !made.IsZero() && !(told && *returns) {
			d.withhold(*made)
		}
	}()
	d.tell()
	told = true
}

// withhold ends the life of b without the parent, to which Close gives it back.
func (d *Debug) withhold(b Block) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.blocks[b.Addr()]
	r.dead = true
	d.liveBlocks--
	d.liveBytes -= int64(r.block.size)
	d.quarantine.withheld = append(d.quarantine.withheld, r)
}

// Free puts b into the quarantine.
func (d *Debug) Free(b Block) error {
	if b.IsZero() {
		return nil
	}
	stack := d.stack()
	defer d.tell()
	d.gate.RLock()
	defer d.gate.RUnlock()
	r, err := d.claim("Free", b, stack)
	if err != nil {
		return err
	}
	d.retire(r)
	return nil
}

// claim ends the life of b, which from then on is the caller's alone, unless it is
// not live or damaged.
func (d *Debug) claim(op string, b Block, now DebugStack) (*debugBlock, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r, err := d.find(op, b, now)
	if err != nil {
		return nil, err
	}
	if report := d.damaged(op, r, now); report != nil {
		r.mend()
		return nil, report
	}
	r.freed, r.dead = now, true
	d.liveBlocks--
	d.liveBytes -= int64(r.block.size)
	return r, nil
}

// unclaim undoes claim.
func (d *Debug) unclaim(r *debugBlock) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r.freed, r.dead = nil, false
	d.liveBlocks++
	d.liveBytes += int64(r.block.size)
}

// find returns the record of b, or a report if it is not live. The caller holds
// d.mu.
func (d *Debug) find(op string, b Block, now DebugStack) (*debugBlock, error) {
	r := d.blocks[b.Addr()]
	switch {
	case r == nil:
		return nil, d.stranger(op, b, now)
	case r.dead:
		return nil, d.report(DebugDoubleFree, op, r, b, now)
	case r.block.size != b.size:
		return nil, d.report(DebugWrongSize, op, r, b, now)
	}
	return r, nil
}

// stranger reports on a block at whose address none begins.
func (d *Debug) stranger(op string, b Block, now DebugStack) *DebugReport {
	if r := d.gone.find(func(r *debugBlock) bool { return r.place.Addr == b.Addr() }); r != nil {
		return d.report(DebugDoubleFree, op, r, b, now)
	}
	for _, r := range d.blocks {
		if offset := b.Addr() - r.place.Addr; offset < r.place.Layout.Size {
			report := d.report(DebugInterior, op, r, b, now)
			report.Offset = int(offset)
			return report
		}
	}
	return d.report(DebugForeign, op, nil, b, now)
}

// Owns reports whether b is a live block of this Debug.
func (d *Debug) Owns(b Block) bool {
	if b.IsZero() {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.blocks[b.Addr()]
	return r != nil && !r.dead && r.block.size == b.size
}

// Parent returns the allocator that memory comes from.
func (d *Debug) Parent() Allocator { return d.parent }

// String returns "Debug", or "Debug with guard pages".
func (d *Debug) String() string {
	if d.options.Guard && pages.Supported {
		return "Debug with guard pages"
	}
	return "Debug"
}

// DebugStats is what a [Debug] holds at a moment. Bytes are of the sizes that were
// asked for.
type DebugStats struct {
	LiveBlocks        int
	LiveBytes         int64
	QuarantinedBlocks int
	QuarantinedBytes  int64
	WithheldBlocks    int // freed blocks that were written to, or that the parent has not taken back
	GuardedBlocks     int // those of all the others that have a mapping of their own
}

// Stats returns what d holds.
func (d *Debug) Stats() DebugStats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return DebugStats{
		LiveBlocks: d.liveBlocks, LiveBytes: d.liveBytes,
		QuarantinedBlocks: len(d.quarantine.blocks), QuarantinedBytes: d.quarantine.size,
		WithheldBlocks: len(d.quarantine.withheld),
		GuardedBlocks:  int(d.guarded.Load()),
	}
}
