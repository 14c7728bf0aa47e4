package guard

import (
	"fmt"
	"os"
	"runtime"
	rdebug "runtime/debug"
	"slices"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/internal/callers"
	"github.com/alloctrace/alloctrace/internal/pages"
)

// newReport begins a report on the block of a slot, which may be nil. The lock is held, or the slot is the
// caller's.
func newReport(kind debug.Kind, op string, at *slot, given blockalloc.Block, now stack) *debug.Report {
	r := &debug.Report{By: "guard", Kind: kind, Op: op, Now: now.kept()}
	if !given.IsZero() {
		r.Given = placeOf(given)
	}
	if at != nil {
		r.Block, r.Allocated, r.Freed = placeOf(at.block), at.allocated.kept(), at.freed.kept()
	}
	return r
}

func placeOf(b blockalloc.Block) debug.Place { return debug.Place{Addr: b.Addr(), Layout: b.Layout()} }

func (s *stack) kept() debug.Stack {
	if s.n == 0 {
		return nil
	}
	return slices.Clone(s.pcs[:s.n])
}

// deliver passes a report on, and ends the process if that is wanted. No lock is held.
func (s *slots) deliver(r *debug.Report) {
	s.reports.Add(1)
	if s.crash { // also if OnReport panics or ends the goroutine
		defer func() {
			go panic(r) // nothing recovers it there
			select {}
		}()
	}
	if s.onReport != nil {
		s.onReport(r)
	} else {
		fmt.Fprintln(os.Stderr, r)
	}
}

// Catch calls f. If f accesses memory of a slot that the processor forbids, f ends there, its deferred
// functions run, and Catch returns the [debug.Report] of that after [Options].OnReport was called with it.
// It wraps [blockalloc.ErrUseAfterFree], [blockalloc.ErrOverrun] or [blockalloc.ErrUnderrun]. A
// fault elsewhere and any other panic go on unchanged. It costs some nanoseconds, and a fault some
// microseconds.
//
// It works for the goroutine that calls it alone, and not for what C code accesses that f calls: a fault there ends the process. See
// [Allocator.Describe] for where a program recovers itself, and for faults that nothing has caught.
func (a *Allocator) Catch(f func()) (err error) {
	defer rdebug.SetPanicOnFault(rdebug.SetPanicOnFault(true))
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		fault, ok := r.(interface{ Addr() uintptr })
		if !ok {
			panic(r)
		}
		report, ok := a.describe("Catch", fault.Addr())
		if !ok {
			panic(r)
		}
		a.slots.deliver(report)
		err = report
	}()
	f()
	return nil
}

// Describe returns the report on a fault at addr, and false if no guarded block has to do with that. It is
// for code that recovers from panics anyway, such as a server's for each request:
//
//	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
//	defer func() {
//		r := recover()
//		if fault, ok := r.(interface{ Addr() uintptr }); ok {
//			if report, ok := mem.Describe(fault.Addr()); ok {
//				r = report
//			}
//		}
//		…
//	}()
//
// Called like that by a deferred function, it has the stack of the access too. It calls no
// [Options].OnReport and counts nothing.
//
// A fault in a goroutine without [runtime/debug.SetPanicOnFault], or in C code, ends the process. The Go runtime prints its
// address, as in "[signal SIGSEGV: … addr=0x…", and the stack of the access, also to the file of
// [runtime/debug.SetCrashOutput]. Nothing in the process runs after that, so that who allocated and freed the
// block is not in it. An address in [Allocator.Mappings] tells such a fault from others.
func (a *Allocator) Describe(addr uintptr) (*debug.Report, bool) { return a.describe("Describe", addr) }

func (a *Allocator) describe(op string, addr uintptr) (*debug.Report, bool) {
	if addr-a.base >= a.size+pages.Size || a.size == 0 {
		return nil, false
	}
	now := faultStack()
	a.slots.mu.Lock()
	defer a.slots.mu.Unlock()
	at := a.slots.nearest(addr)
	if at == nil || at.state == live && addr-at.from.Addr() < at.from.Size() {
		return nil, false
	}
	kind := debug.Overrun
	switch {
	case at.state == dead:
		kind = debug.UseAfterFree
	case addr < at.block.Addr():
		kind = debug.Underrun
	}
	r := newReport(kind, op, at, blockalloc.Block{}, now)
	r.Offset, r.Fault = int(addr-at.block.Addr()), true
	return r, true
}

// nearest returns the slot whose block is nearest to addr, of those around it, nil if they have had none. s.mu is held.
func (s *slots) nearest(addr uintptr) (nearest *slot) {
	c, in := s.at(min(addr, s.base+s.size-1))
	least := ^uintptr(0)
	for i := max(in-1, 0); i < min(in+2, len(c.slots)); i++ {
		at := &c.slots[i]
		if at.state == idle {
			continue
		}
		distance := at.block.Addr() - addr
		if addr >= at.block.Addr() {
			distance = 0
			if end := at.block.Addr() + at.block.Size(); addr >= end {
				distance = addr - end + 1
			}
		}
		if distance < least {
			nearest, least = at, distance
		}
	}
	return nearest
}

// faultStack returns where the present panic came from, if it came from a fault.
func faultStack() (s stack) {
	var pcs [2 * maxStack]uintptr
	all := pcs[:runtime.Callers(1, pcs[:])]
	for i, pc := range all {
		if f := runtime.FuncForPC(pc - 1); f != nil && f.Name() == "runtime.sigpanic" {
			s.n = copy(s.pcs[:], all[i+1:])
			return s
		}
	}
	return s
}

// maxStack is how many frames are kept of who allocated and who freed a block.
const maxStack = 32

// A stack is where an operation was called.
type stack struct {
	pcs [maxStack]uintptr
	n   int
}

// here returns where it is called.
func here() (s stack) {
	s.n = callers.Stack(s.pcs[:])
	return s
}
