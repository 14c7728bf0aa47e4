// Package guard finds misuse of memory in production: uses after free, overruns, underruns, and frees of
// what is not a live block. Its [Allocator] wraps any other. It sends one block in so many bytes, chosen
// at random, to a slot between inaccessible pages. All others pass through, at the cost of a random
// number.
//
//	mem := guard.New(blockalloc.Default(), guard.Options{OnReport: func(r *debug.Report) {
//		slog.Error("memory error", "report", r)
//	}})
//
// A freed block's slot is inaccessible, and reused as late as possible. So the processor refuses any access
// to the block then, and any access past the end or before the start of a live one. A report has the
// stacks of who allocated the block, who freed it, and who did the access. See [Allocator.Catch] and
// [Allocator.Describe].
//
// A single process seldom has the block in a slot that an error hits: the chance is
// 1-exp(-size/rate) for each block, of a size up to [Options].MaxDrawn. A fleet that runs for a day has it often. To find an error in a test,
// use package debug, which guards every block. This is what tcmalloc and Chrome have for C++ as
// GWP-ASan.
package guard

import (
	"context"
	"fmt"
	"unsafe"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/random"
)

// An Allocator guards one block in so many bytes of an inner allocator. [New] makes one.
//
// Guarded blocks are not the inner allocator's: it neither counts nor bounds them. So wrap the
// root, such as a Pool, and put a Limit and Proxies around the Allocator. Do not wrap a
// [blockalloc.Reserved]: a guarded block does not grow in place.
//
// A guarded block has exactly the size that was asked for, up to 64 MiB, or 1020 KiB where addresses have 32
// bits. It ends at an inaccessible page or begins after one, as chance has it, so that overruns and
// underruns are both found. What its alignment leaves at the end of a page is filled with a
// pattern that is checked at its free. Its memory is zeroed. It moves when it is reallocated. A
// reallocation is drawn for by the bytes that it adds, and if the inner allocator is no
// [blockalloc.Owner], only for a guarded block.
//
// Free and Reallocate of what is not a live guarded block, inside the slots, return a
// [debug.Report] that wraps [blockalloc.ErrDoubleFree] or [blockalloc.ErrNotOwned]; nothing else
// happens. A block whose surroundings were overwritten is reported, and freed none the less: Free returns
// nil. Errors with other blocks are found by the inner allocator, if it can.
//
// A block that is not guarded costs a random number, a load and a comparison when it is allocated, and a
// comparison when it is freed. It takes no lock and writes nothing that is shared. A guarded one costs
// some microseconds, most of it two system calls; all of them share a lock.
// An Allocator takes [Options].Memory, and 2 mappings for each live guarded block, some 400 in all by
// default. It reserves 3.5 GiB of address space that take no memory (110 MiB where
// addresses have 32 bits), and gives them back when it is collected with no guarded block live. With no room for
// them it does with fewer and smaller slots: see [Stats].
//
// Where Go has no pages of the operating system (js/wasm, wasip1, plan9), everything passes through. The
// race detector does not see guarded blocks.
//
// Several goroutines may use an Allocator at once if they may use the inner one.
type Allocator struct {
	inner      blockalloc.Allocator
	owner      blockalloc.Owner // nil if inner is none
	base, size uintptr          // of the address space of all slots
	slots      *slots           // shared by views
}

var (
	_ blockalloc.ContextAllocator = (*Allocator)(nil)
	_ blockalloc.Owner            = (*Allocator)(nil)
	_ blockalloc.Resizer          = (*Allocator)(nil)
	_ blockalloc.Finder           = (*Allocator)(nil)
	_ blockalloc.Mapper           = (*Allocator)(nil)
	_ blockalloc.Rewrapper        = (*Allocator)(nil)
)

// New returns an Allocator that guards blocks of inner. It panics if inner is nil.
func New(inner blockalloc.Allocator, o Options) *Allocator {
	if inner == nil {
		panic("guard: New(nil): pass an allocator, such as blockalloc.Default()")
	}
	owner, _ := blockalloc.OwnerOf(inner)
	s := newSlots(o)
	a := &Allocator{inner: inner, owner: owner, base: s.base, size: s.size, slots: s}
	switch {
	case o.Rate == 0:
		a.SetRate(DefaultRate)
	case o.Rate > 0:
		a.SetRate(o.Rate)
	}
	return a
}

// SetRate changes the rate for what is allocated from now on: 1 guards every block that there is a slot
// for, 0 none. It panics if rate is negative.
func (a *Allocator) SetRate(rate int) {
	if rate < 0 {
		panic(fmt.Sprintf("guard: Allocator.SetRate(%d): use 0 for no blocks, 1 for all, or %d", rate, DefaultRate))
	}
	a.slots.setRate(rate)
}

// isGuarded reports whether addr is in a slot.
func (a *Allocator) isGuarded(addr uintptr) bool { return addr-a.base < a.size }

// Allocate returns a guarded block, if it is drawn and there is a slot for it, or one of the inner allocator.
func (a *Allocator) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	if drawn := random.Uint32(); a.slots.isLikely(drawn, l.Size) {
		return a.allocate(drawn, l)
	}
	return a.inner.Allocate(l)
}

// allocate returns a guarded block if the number drawn chooses it.
func (a *Allocator) allocate(drawn uint32, l blockalloc.Layout) (blockalloc.Block, error) {
	if b, ok := a.slots.draw(drawn, l.Size, l); ok {
		return b, nil
	}
	return a.inner.Allocate(l)
}

// AllocateContext does what Allocate does. For a block that is not guarded it may wait, by [blockalloc.AllocateContext].
func (a *Allocator) AllocateContext(ctx context.Context, l blockalloc.Layout) (blockalloc.Block, error) {
	if drawn := random.Uint32(); a.slots.isLikely(drawn, l.Size) {
		if b, ok := a.slots.draw(drawn, l.Size, l); ok {
			return b, nil
		}
	}
	return blockalloc.AllocateContext(ctx, a.inner, l)
}

// Free frees b. See [Allocator] for what it finds.
func (a *Allocator) Free(b blockalloc.Block) error {
	if a.isGuarded(b.Addr()) {
		return a.free(b)
	}
	return a.inner.Free(b)
}

// free frees a block whose address is in a slot.
func (a *Allocator) free(b blockalloc.Block) error {
	now := here()
	s, report := a.slots.claim("Free", b, now)
	if report != nil {
		a.slots.deliver(report)
		return report
	}
	a.slots.retire("Free", s, now)
	return nil
}

// Reallocate moves a guarded block. Another one is reallocated by the inner allocator, or moves to a slot.
func (a *Allocator) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	if a.isGuarded(b.Addr()) {
		return a.moveOut(b, size)
	}
	if added := size - b.Size(); size > b.Size() && !b.IsZero() {
		if drawn := random.Uint32(); a.slots.isLikely(drawn, added) {
			return a.moveIn(b, size, drawn)
		}
	}
	return a.inner.Reallocate(b, size)
}

// request returns the layout that is asked for by the reallocation of b.
func request(b blockalloc.Block, size uintptr) blockalloc.Layout {
	l := b.Layout()
	l.Size = size
	return l
}

// moveIn moves a block of the inner allocator to a slot, if it can be seen to be live and is chosen.
func (a *Allocator) moveIn(b blockalloc.Block, size uintptr, drawn uint32) (blockalloc.Block, error) {
	if a.owner == nil || b.IsRaw() || !a.owner.Owns(b) {
		return a.inner.Reallocate(b, size)
	}
	n, ok := a.slots.draw(drawn, size-b.Size(), request(b, size))
	if !ok {
		return a.inner.Reallocate(b, size)
	}
	copy(n.Bytes(), b.Bytes())
	freed := false
	defer func() { // also if the inner allocator panics or ends the goroutine
		if !freed {
			a.slots.undo(n)
		}
	}()
	if err := a.inner.Free(b); err != nil {
		return b, err
	}
	freed = true
	return n, nil
}

// moveOut moves a guarded block to one that is allocated anew.
func (a *Allocator) moveOut(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	l := request(b, size)
	if err := l.Check(); err != nil {
		return b, fmt.Errorf("guard: Reallocate(%v, %d): %w", b, size, err)
	}
	now := here()
	s, report := a.slots.claim("Reallocate", b, now)
	if report != nil {
		a.slots.deliver(report)
		return b, report
	}
	var n blockalloc.Block
	retiring, retired := false, false
	defer func() { // also if the inner allocator or OnReport panics or ends the goroutine
		switch {
		case !retiring:
			a.slots.unclaim(s)
		case !retired: // and nobody is given the new block
			_ = a.Free(n)
		}
	}()
	if size > 0 {
		var err error
		if n, err = a.replacement(l, b); err != nil {
			return b, err
		}
		copy(n.Bytes(), b.Bytes())
	}
	retiring = true
	a.slots.retire("Reallocate", s, now)
	retired = true
	return n, nil
}

// replacement allocates a block that is to replace b: a guarded one by the bytes that it adds.
func (a *Allocator) replacement(l blockalloc.Layout, b blockalloc.Block) (blockalloc.Block, error) {
	if l.Size > b.Size() {
		added := l.Size - b.Size()
		if drawn := random.Uint32(); a.slots.isLikely(drawn, added) {
			if n, ok := a.slots.draw(drawn, added, l); ok {
				return n, nil
			}
		}
	}
	return a.inner.Allocate(l)
}

// Resize resizes b in place by the inner allocator, if that is a [blockalloc.Resizer]. A guarded block
// keeps its size, or else the error is [blockalloc.ErrWouldMove].
func (a *Allocator) Resize(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	if !a.isGuarded(b.Addr()) {
		return blockalloc.Resize(a.inner, b, size)
	}
	l := request(b, size)
	err := l.Check()
	if size == 0 {
		err = fmt.Errorf("%w: size 0: use Free", blockalloc.ErrBadLayout)
	}
	if err == nil {
		live, report := a.slots.check("Resize", b, here())
		if report != nil {
			a.slots.deliver(report)
			return b, report
		}
		if size == live.Size() {
			return live, nil
		}
		err = fmt.Errorf("%w: it is guarded: use Reallocate, which moves it", blockalloc.ErrWouldMove)
	}
	return b, fmt.Errorf("guard: Resize(%v, %d): %w", b, size, err)
}

// Owns reports whether b is a live block, guarded or of the inner allocator, false if that is no Owner.
func (a *Allocator) Owns(b blockalloc.Block) bool {
	if a.owner == nil || b.IsZero() {
		return false
	}
	if a.isGuarded(b.Addr()) {
		live, ok := a.slots.find(b.Addr())
		return ok && b.Is(live)
	}
	return a.owner.Owns(b)
}

// Find returns the live guarded block that holds the byte at p, for a lock and a look, or what the inner allocator
// finds, nothing if that is no [blockalloc.Finder].
func (a *Allocator) Find(p unsafe.Pointer) (blockalloc.Block, bool) {
	if a.isGuarded(uintptr(p)) {
		return a.slots.find(uintptr(p))
	}
	if f, ok := a.inner.(blockalloc.Finder); ok {
		return f.Find(p)
	}
	return blockalloc.Block{}, false
}

// Unwrap returns the inner allocator.
func (a *Allocator) Unwrap() blockalloc.Allocator { return a.inner }

// Rewrap returns an Allocator over another view of the inner one, with the same slots, rate and figures.
func (a *Allocator) Rewrap(view func(blockalloc.Allocator) blockalloc.Allocator) blockalloc.Allocator {
	return &Allocator{view(a.inner), a.owner, a.base, a.size, a.slots}
}

// Mappings returns the address space of the slots, hardly any of which is in memory.
func (a *Allocator) Mappings() []blockalloc.Mapping {
	if a.size == 0 {
		return nil
	}
	return []blockalloc.Mapping{{Addr: a.base, Size: a.size}}
}

// String returns, for example, "guard.Allocator, one block in 8388608 B".
func (a *Allocator) String() string {
	return fmt.Sprintf("guard.Allocator, one block in %d B", a.slots.rate.Load())
}
