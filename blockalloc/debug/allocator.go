// Package debug finds misuse of memory in tests. Its [Allocator] takes memory from a
// parent, or with [Options].Guard from the operating system, keeps a record of every
// block, and finds:
//
//   - Frees and reallocations of what is not a live block of this Allocator: freed before
//     ([blockalloc.ErrDoubleFree]), allocated elsewhere, of another size, or beginning
//     inside a block ([blockalloc.ErrNotOwned]). The block stays as it is.
//   - Writes past the end of a block ([blockalloc.ErrOverrun]) and before its start
//     ([blockalloc.ErrUnderrun]), when it is freed or reallocated, by Check and by Close.
//   - Writes to a block after it was freed ([blockalloc.ErrUseAfterFree]), when it leaves
//     the quarantine, by Check and by Close; and with Guard any access, at once.
//   - Blocks that are live at Close ([blockalloc.ErrLive]), by where they were allocated.
//
// Each such error is or wraps a [Report], which says which block it is, who allocated
// it, who freed it, and who uses it now.
//
// It cannot find a write of the same bytes, or the use of a stale copy once another
// block has its place; the quarantine delays that. Without Guard, it cannot find reads,
// and writes that skip the canaries.
//
// If the program is built with -asan, AddressSanitizer ends it at the first access to
// the surroundings of a block or to the quarantine, with its own report. That needs cgo
// and gcc or clang. AddressSanitizer also sees reads, and C code. ASAN_OPTIONS=allow_user_poisoning=0
// leaves such accesses to this package.
package debug

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/callers"
	"github.com/alloctrace/alloctrace/internal/canary"
	"github.com/alloctrace/alloctrace/internal/hidden"
	"github.com/alloctrace/alloctrace/internal/spans"
)

// An Allocator finds misuse of its blocks. [New] makes one.
//
// A reallocation always moves the block, so that stale pointers are found. Blocks have
// exactly the size that was asked for, whatever the parent would grant: all of Block.Size may be used by contract, so that
// only a byte past it can be guarded. Code that keeps to Size, and frees by [blockalloc.FromRaw] with a size from what it
// asked for to Size, works with this Allocator and with those that grant more. If a block is damaged, Free and Reallocate
// return a report, write its canaries anew, and leave the block live: to free it again
// succeeds. A block that was written to after it was freed is withheld from the parent,
// so that it is not reused, until Close has reported it.
//
// An error found when another block is freed is not that caller's. It is kept for Check
// and Close, the first hundred of them, and passed to Options.OnReport at once.
//
// Free does not fail because the parent's Free does: the block is kept, and given back
// by Close, which returns the error if it fails again. If the parent is out of memory,
// the quarantine is given back before Allocate and Reallocate fail.
//
// Several goroutines may use an Allocator at once if they may use its parent; records
// have one lock. Close it to give its memory back.
type Allocator struct {
	parent  blockalloc.Allocator
	options Options // with defaults in place
	skip    callers.Skip

	// gate is read-locked by operations and locked by Close, so that no block is on its
	// way to the parent or into quarantine then.
	gate   sync.RWMutex
	closed bool

	guarded atomic.Int64 // blocks with a mapping of their own, in quarantine too

	mu         sync.Mutex // guards what follows
	blocks     map[hidden.Addr]*record
	byKey      map[uint64]*record // the same, by spans.Key
	levels     spans.Levels
	serial     uint64
	liveBlocks int
	liveBytes  int64
	quarantine quarantine
	released   history
	findings   []error // not returned by any operation but Check
	moreFound  int     // findings beyond maxFindings

	reportMu    sync.Mutex
	undelivered []*Report // to Options.OnReport
}

var (
	_ blockalloc.Allocator = (*Allocator)(nil)
	_ blockalloc.Owner     = (*Allocator)(nil)
	_ blockalloc.Resizer   = (*Allocator)(nil)
	_ blockalloc.Finder    = (*Allocator)(nil)
	_ blockalloc.Mapper    = (*Allocator)(nil)
)

// New returns an Allocator that takes memory from parent. It panics if parent is nil, or
// Options.Skip has what is no import path.
func New(parent blockalloc.Allocator, options Options) *Allocator {
	if parent == nil {
		panic("debug: New(nil): pass an allocator, such as blockalloc.Default()")
	}
	skip, err := callers.NewSkip(options.Skip)
	if err != nil {
		panic("debug: New: Options." + err.Error())
	}
	return &Allocator{parent: parent, options: options.withDefaults(), skip: skip, blocks: make(map[hidden.Addr]*record), byKey: make(map[uint64]*record)}
}

// Allocate returns a block of exactly l.Size bytes.
func (d *Allocator) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	if err := l.Check(); err != nil {
		return blockalloc.Block{}, allocateError(l, err)
	}
	if l.Size == 0 {
		return blockalloc.Block{}, nil
	}
	stack := d.stack()
	var made blockalloc.Block
	var returns bool
	defer d.finish(&made, &returns)
	d.gate.RLock()
	defer d.gate.RUnlock()
	b, err := d.allocate("Allocate", l, stack)
	if err != nil && !isReport(err) {
		err = allocateError(l, err)
	}
	made, returns = b, true
	return b, err
}

func (d *Allocator) allocate(op string, l blockalloc.Layout, now Stack) (blockalloc.Block, error) {
	if d.closed {
		return blockalloc.Block{}, blockalloc.ErrClosed
	}
	r, err := d.obtain(l)
	if isOutOfMemory(err) && d.dismissAll() {
		r, err = d.obtain(l)
	}
	if err == nil {
		err = d.prepare(op, r, now)
	}
	if err != nil {
		return blockalloc.Block{}, err
	}
	r.allocated = now
	d.mu.Lock()
	defer d.mu.Unlock()
	d.serial++
	r.serial = d.serial
	d.add(r)
	d.liveBlocks++
	d.liveBytes += int64(l.Size)
	return r.block, nil
}

// prepare fills a fresh block as the options say.
func (d *Allocator) prepare(op string, r *record, now Stack) error {
	zeroed := d.options.Zeroed || r.block.Layout().Zeroed
	if zeroed && !r.guarded() {
		if damage := canary.Differs(r.block.Bytes(), 0); damage != nil {
			report := d.report(NotZeroed, op, r, blockalloc.Block{}, now)
			report.set(damage)
			r.dead = true
			return errors.Join(report, d.release(r))
		}
	}
	if !zeroed && !d.options.NoPoison {
		fill(r.block.Bytes(), freshPoison)
	}
	r.writeCanaries()
	return nil
}

// Reallocate moves b, whatever the size.
func (d *Allocator) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	if b.IsZero() {
		return b, reallocateError(b, size, errEmptyReallocate)
	}
	l := b.Layout()
	l.Size = size
	if err := l.Check(); err != nil {
		return b, reallocateError(b, size, err)
	}
	stack := d.stack()
	var made blockalloc.Block
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
				err = reallocateError(b, size, err)
			}
			return b, err
		}
		copy(made.Bytes(), b.Bytes())
	}
	d.retire(r)
	returns = true
	return made, nil
}

// Resize refuses with [blockalloc.ErrWouldMove]: see Reallocate. If b is not live, the error is a report.
func (d *Allocator) Resize(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	if b.IsZero() || size == 0 {
		return b, resizeError(b, size, errEmptyResize)
	}
	if err := (blockalloc.Layout{Size: size, Align: b.Align()}).Check(); err != nil {
		return b, resizeError(b, size, err)
	}
	stack := d.stack()
	defer d.deliver()
	d.gate.RLock()
	defer d.gate.RUnlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, err := d.find("Resize", b, stack); err != nil {
		return b, err
	}
	return b, resizeError(b, size, errMoves)
}

// allocateFor returns a block that is to replace r, which was claimed. If there is
// none, it undoes the claim.
func (d *Allocator) allocateFor(r *record, l blockalloc.Layout, now Stack) (b blockalloc.Block, err error) {
	defer func() {
		if b.IsZero() { // also if the parent panics or ends the goroutine
			d.unclaim(r)
		}
	}()
	return d.allocate("Reallocate", l, now)
}

// finish ends an operation that may have made a block. If the operation does not
// return, because the parent or Options.OnReport panics or ends the goroutine, nobody
// has the block, and finish withholds it.
func (d *Allocator) finish(made *blockalloc.Block, returns *bool) {
	delivered := false
	defer func() {
		if !made.IsZero() && !(delivered && *returns) {
			d.withhold(*made)
		}
	}()
	d.deliver()
	delivered = true
}

// withhold ends the life of b and keeps its memory: Close gives it back to the parent.
func (d *Allocator) withhold(b blockalloc.Block) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.blocks[hidden.OfAddr(b.Addr())]
	r.dead = true
	d.liveBlocks--
	d.liveBytes -= int64(r.block.Size())
	d.quarantine.withheld = append(d.quarantine.withheld, r)
}

// Free puts b into the quarantine.
func (d *Allocator) Free(b blockalloc.Block) error {
	if b.IsZero() {
		return nil
	}
	stack := d.stack()
	defer d.deliver()
	d.gate.RLock()
	defer d.gate.RUnlock()
	r, err := d.claim("Free", b, stack)
	if err != nil {
		return err
	}
	d.retire(r)
	return nil
}

// claim ends the life of b, if b is live and not damaged. From then on only the caller
// has it.
func (d *Allocator) claim(op string, b blockalloc.Block, now Stack) (*record, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r, err := d.find(op, b, now)
	if err != nil {
		return nil, err
	}
	if report := d.damaged(op, r, now); report != nil {
		r.writeCanaries()
		return nil, report
	}
	r.freed, r.dead = now, true
	d.liveBlocks--
	d.liveBytes -= int64(r.block.Size())
	return r, nil
}

// unclaim undoes claim.
func (d *Allocator) unclaim(r *record) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r.freed, r.dead = nil, false
	d.liveBlocks++
	d.liveBytes += int64(r.block.Size())
}

// find returns the record of b, or a report if it is not live. d.mu is held.
func (d *Allocator) find(op string, b blockalloc.Block, now Stack) (*record, error) {
	r := d.blocks[hidden.OfAddr(b.Addr())]
	switch {
	case r == nil:
		return nil, d.unknown(op, b, now)
	case r.dead:
		return nil, d.report(DoubleFree, op, r, b, now)
	case !b.Is(r.block):
		return nil, d.report(WrongSize, op, r, b, now)
	}
	return r, nil
}

// unknown reports on an address at which no block begins.
func (d *Allocator) unknown(op string, b blockalloc.Block, now Stack) *Report {
	if r := d.released.find(func(r *record) bool { return r.place.Addr == b.Addr() }); r != nil {
		return d.report(DoubleFree, op, r, b, now)
	}
	if r := d.holding(b.Addr()); r != nil {
		report := d.report(Interior, op, r, b, now)
		report.Offset = int(b.Addr() - r.place.Addr)
		return report
	}
	return d.report(Foreign, op, nil, b, now)
}

// Owns reports whether b is a live block of d.
func (d *Allocator) Owns(b blockalloc.Block) bool {
	if b.IsZero() {
		return false
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.blocks[hidden.OfAddr(b.Addr())]
	return r != nil && !r.dead && b.Is(r.block)
}

// add and remove keep the records by the places of their blocks. d.mu is held.
func (d *Allocator) add(r *record) {
	d.blocks[hidden.OfAddr(r.place.Addr)] = r
	d.levels.Add(r.place.Layout.Size)
	d.byKey[spans.Key(r.place.Addr, r.place.Layout.Size)] = r
}

func (d *Allocator) remove(r *record) {
	delete(d.blocks, hidden.OfAddr(r.place.Addr))
	delete(d.byKey, spans.Key(r.place.Addr, r.place.Layout.Size))
}

// holding returns the record of the block, live or dead, that holds the byte at addr, nil if there is none. d.mu is
// held.
func (d *Allocator) holding(addr uintptr) *record {
	for key := range d.levels.Around(addr) {
		if r := d.byKey[key]; r != nil && addr-r.place.Addr < r.place.Layout.Size {
			return r
		}
	}
	return nil
}

// Find returns the live block of d that holds the byte at p: up to three look-ups for each power of two between the sizes
// of the blocks. Canaries and guard pages are of no block.
func (d *Allocator) Find(p unsafe.Pointer) (blockalloc.Block, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.holding(uintptr(p))
	if r == nil || r.dead {
		return blockalloc.Block{}, false
	}
	return r.block, true
}

// Parent returns the allocator that memory comes from.
func (d *Allocator) Parent() blockalloc.Allocator { return d.parent }

// Mappings returns the blocks that have mappings of their own, also those in
// quarantine. The others are in the parent's mappings.
func (d *Allocator) Mappings() (list []blockalloc.Mapping) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, r := range d.blocks {
		if r.guarded() {
			list = append(list, blockalloc.Mapping{Addr: r.region.Addr(), Size: r.region.Size()})
		}
	}
	return list
}

// String returns "debug.Allocator", or "debug.Allocator with guard pages".
func (d *Allocator) String() string {
	if d.options.Guard {
		return "debug.Allocator with guard pages"
	}
	return "debug.Allocator"
}

// Stats are the figures of an [Allocator]. Bytes are those that were asked for.
type Stats struct {
	LiveBlocks        int
	LiveBytes         int64
	QuarantinedBlocks int
	QuarantinedBytes  int64
	WithheldBlocks    int // freed blocks that were written to, or that the parent refused to take back
	GuardedBlocks     int // blocks of all the above that have a mapping of their own
}

// Stats returns the present figures.
func (d *Allocator) Stats() Stats {
	d.mu.Lock()
	defer d.mu.Unlock()
	return Stats{
		LiveBlocks: d.liveBlocks, LiveBytes: d.liveBytes,
		QuarantinedBlocks: len(d.quarantine.blocks), QuarantinedBytes: d.quarantine.size,
		WithheldBlocks: len(d.quarantine.withheld),
		GuardedBlocks:  int(d.guarded.Load()),
	}
}

func allocateError(l blockalloc.Layout, err error) error {
	return fmt.Errorf("debug: Allocate(%v): %w", l, err)
}

func reallocateError(b blockalloc.Block, size uintptr, err error) error {
	return fmt.Errorf("debug: Reallocate(%v, %d): %w", b, size, err)
}

func resizeError(b blockalloc.Block, size uintptr, err error) error {
	return fmt.Errorf("debug: Resize(%v, %d): %w", b, size, err)
}

func closeError(blocks int, size int64) error {
	return fmt.Errorf("debug: Close: %w: %d of them, %d bytes in all: free them first", blockalloc.ErrLive, blocks, size)
}

var (
	errEmptyResize = fmt.Errorf("%w: pass a live block, and 1 byte or more", blockalloc.ErrBadLayout)
	errMoves       = fmt.Errorf("%w: each reallocation moves the block, so that stale pointers are found: use Reallocate", blockalloc.ErrWouldMove)
)

var errEmptyReallocate = fmt.Errorf("%w: the alignment wanted is not known: use Allocate", blockalloc.ErrBadLayout)

// isOutOfMemory reports whether giving blocks back and asking again may help.
func isOutOfMemory(err error) bool {
	return errors.Is(err, blockalloc.ErrOutOfMemory) || errors.Is(err, blockalloc.ErrLimit)
}
