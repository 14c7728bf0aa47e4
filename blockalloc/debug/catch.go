package debug

import (
	"runtime"
	"runtime/debug"

	"github.com/alloctrace/alloctrace/blockalloc"
)

// Catch calls f. If f accesses memory of a guarded block that the processor forbids, f
// ends there, its deferred functions run, and Catch returns a [Report]. It wraps
// [blockalloc.ErrOverrun], [blockalloc.ErrUnderrun] or [blockalloc.ErrUseAfterFree],
// and has the block, the byte, and who allocated, freed and accessed it. Whether that
// was a read or a write is not known. A fault elsewhere and any other panic go on
// unchanged. It costs some nanoseconds, and a fault some microseconds.
//
// It works for the goroutine that calls it alone. Without Catch a fault ends the
// program with "unexpected fault address 0x…" and a stack. To find the block, run the
// suspicious code under Catch. Or call [debug.SetPanicOnFault] in the goroutine,
// recover, and pass the address that the panic's Addr method returns to
// [Allocator.Fault].
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

// Fault returns the report on a fault at addr. It returns nil unless addr is near a
// block with guard pages, or inside one that was freed and is still known.
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

// faulted returns the block that an inaccessible address belongs to, or nil. d.mu is
// held.
func (d *Allocator) faulted(addr uintptr) *record {
	for _, r := range d.blocks {
		accessible := addr-r.from.Addr() < r.from.Size() && !r.sealed
		if r.guarded() && addr-r.region.Addr() < r.region.Size() && !accessible {
			return r
		}
	}
	return d.released.findUnmapped(addr)
}

// faultKind returns the kind of a fault at addr, which belongs to r.
func (r *record) faultKind(addr uintptr) Kind {
	switch {
	case r.dead:
		return UseAfterFree
	case addr < r.place.Addr:
		return Underrun
	}
	return Overrun
}

// faultStack returns where the present panic came from.
func (d *Allocator) faultStack() Stack {
	if d.options.Stack == 0 {
		return nil
	}
	var pcs [maxStack + 8]uintptr // some of them the runtime's, which Frames leaves out
	return Stack(pcs[:runtime.Callers(2, pcs[:d.options.Stack+8])])
}
