package debug

import (
	"runtime"
	"runtime/debug"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// Catch calls f. If f accesses memory of a block with guard pages where it must not,
// which the processor refuses, f ends there, its deferred functions run, and Catch
// returns a [Report] as error: [blockalloc.ErrOverrun], [blockalloc.ErrUnderrun] or
// [blockalloc.ErrUseAfterFree], with the block, the byte, and who allocated, freed and
// accessed it. Whether it was to read or to write is not known. A fault elsewhere and any other panic go on as
// the panic they were. It costs some nanoseconds, and a fault some microseconds.
//
// It holds for the goroutine that calls it alone. Without Catch a fault ends the
// program with "unexpected fault address 0x…" and the stack of who did it. To find
// the block, run the suspicious code under Catch; or have the goroutine call
// [debug.SetPanicOnFault], recover, and pass the address that the panic's Addr method
// returns to [Allocator.Fault].
func (d *Allocator) Catch(f func()) (err error) {
	defer d.deliver()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		fault, ok := r.(interface{ Addr() uintptr })
		if !ok {
			panic(r)
		}
		report := d.fault("Catch", fault.Addr(), d.faultStack())
		if report == nil {
			panic(r)
		}
		err = report
	}()
	f()
	return nil
}

// Fault returns the report on a fault at an address, or nil if it is not one that is
// near a block with guard pages, or inside one that was freed and is still known.
func (d *Allocator) Fault(addr uintptr) error {
	now := d.stack()
	defer d.deliver()
	if report := d.fault("Fault", addr, now); report != nil {
		return report
	}
	return nil
}

func (d *Allocator) fault(op string, addr uintptr, now Stack) *Report {
	d.mu.Lock()
	defer d.mu.Unlock()
	r := d.faulted(addr)
	if r == nil {
		return nil
	}
	report := d.report(r.faultKind(addr), op, r, blockalloc.Block{}, now)
	report.Offset, report.Fault = int(addr-r.place.Addr), true
	return report
}

// faulted returns the block to which an inaccessible address belongs, or nil. The
// caller holds d.mu.
func (d *Allocator) faulted(addr uintptr) *record {
	for _, r := range d.blocks {
		accessible := addr-r.from.Addr() < r.from.Size() && !r.sealed
		if r.guarded() && addr-r.region.Addr() < r.region.Size() && !accessible {
			return r
		}
	}
	return d.released.findUnmapped(addr)
}

// faultKind says what a fault at addr was, which belongs to r.
func (r *record) faultKind(addr uintptr) Kind {
	switch {
	case r.dead:
		return UseAfterFree
	case addr < r.place.Addr:
		return Underrun
	}
	return Overrun
}

// faultStack returns where the panic under way came from.
func (d *Allocator) faultStack() Stack {
	if d.options.Stack == 0 {
		return nil
	}
	var pcs [maxStack + 8]uintptr // some of them the runtime's, which Frames leaves out
	return Stack(pcs[:runtime.Callers(2, pcs[:d.options.Stack+8])])
}
