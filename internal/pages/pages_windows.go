package pages

import (
	"errors"
	"sync"
	"unsafe"

	"golang.org/x/sys/windows"
)

// Supported reports whether the platform has pages.
const Supported = true

// CanShrink reports whether part of a mapping can be unmapped: Windows releases whole
// regions only.
const CanShrink = false

// PurgeZeroes reports whether pages are zero after Purge. Those that MEM_RESET was called for are not
// defined, and may keep their content.
const PurgeZeroes = false

// granularity is the alignment of every region that VirtualAlloc reserves.
const granularity = 64 << 10

// procVirtualAlloc2 exists since Windows 10 version 1803.
var procVirtualAlloc2 = windows.NewLazySystemDLL("kernelbase.dll").NewProc("VirtualAlloc2")

var hasVirtualAlloc2 = sync.OnceValue(func() bool { return procVirtualAlloc2.Find() == nil })

// Map reserves and commits size bytes at a multiple of align, both whole
// pages.
func Map(size, align uintptr) (unsafe.Pointer, error) {
	return virtualAllocAligned(size, align, windows.MEM_RESERVE|windows.MEM_COMMIT)
}

// Reserve reserves size bytes of address space at a multiple of align, both
// whole pages, without access.
func Reserve(size, align uintptr) (unsafe.Pointer, error) {
	return virtualAllocAligned(size, align, windows.MEM_RESERVE)
}

// Commit makes reserved pages accessible. They are zeroed.
func Commit(p unsafe.Pointer, size uintptr) error {
	_, err := virtualAlloc(uintptr(p), size, windows.MEM_COMMIT)
	return err
}

// Purge gives back the memory of accessible pages, which stay accessible and
// committed. Their content is lost.
func Purge(p unsafe.Pointer, size uintptr) error {
	if _, err := virtualAlloc(uintptr(p), size, windows.MEM_RESET); err != nil {
		return err
	}
	// Unlocking pages that are not locked fails, but takes them out of the working set.
	// Otherwise they stay there until the machine is short of memory.
	_ = windows.VirtualUnlock(uintptr(p), size)
	return nil
}

func virtualAllocAligned(size, align uintptr, kind uint32) (unsafe.Pointer, error) {
	switch {
	case align <= granularity:
		return virtualAlloc(0, size, kind)
	case hasVirtualAlloc2():
		p, err := virtualAlloc2(size, align, kind)
		if err == nil && uintptr(p)&(align-1) == 0 {
			return p, nil
		}
		if err == nil { // a system that knows the call and not the parameter
			err = Unmap(p, size)
		}
		if err != nil && !errors.Is(err, windows.ERROR_INVALID_PARAMETER) {
			return nil, err
		}
	}
	return reserveAgain(size, align, kind)
}

// virtualAlloc2 has the system find an aligned address in one call. The two
// structures are MEM_ADDRESS_REQUIREMENTS and MEM_EXTENDED_PARAMETER.
func virtualAlloc2(size, align uintptr, kind uint32) (unsafe.Pointer, error) {
	const memExtendedParameterAddressRequirements = 1
	requirements := struct{ lowest, highest, alignment uintptr }{alignment: align}
	parameter := struct {
		kind    uint64
		pointer unsafe.Pointer
		_       uintptr // the rest of a union of 64 bits where a pointer has 32
	}{kind: memExtendedParameterAddressRequirements, pointer: unsafe.Pointer(&requirements)}
	addr, _, err := procVirtualAlloc2.Call(0, 0, size, uintptr(kind), windows.PAGE_READWRITE,
		uintptr(unsafe.Pointer(&parameter)), 1)
	if addr == 0 {
		return nil, err
	}
	return pointer(addr), nil
}

// reserveAgain serves systems without VirtualAlloc2: it reserves enough to hold an
// aligned block, releases it, and asks for the aligned address inside. If another
// thread takes that address first, it tries again.
func reserveAgain(size, align uintptr, kind uint32) (unsafe.Pointer, error) {
	var err error
	for range 100 {
		var span, p unsafe.Pointer
		span, err = virtualAlloc(0, size+align-granularity, windows.MEM_RESERVE)
		if err != nil {
			return nil, err
		}
		aligned := RoundUp(uintptr(span), align)
		if err = Unmap(span, 0); err != nil {
			return nil, err
		}
		p, err = virtualAlloc(aligned, size, kind)
		if err == nil {
			return p, nil
		}
		if !errors.Is(err, windows.ERROR_INVALID_ADDRESS) {
			return nil, err
		}
	}
	return nil, err
}

func virtualAlloc(addr, size uintptr, kind uint32) (unsafe.Pointer, error) {
	addr, err := windows.VirtualAlloc(addr, size, kind, windows.PAGE_READWRITE)
	if err != nil {
		return nil, err
	}
	return pointer(addr), nil
}

// Unmap releases the whole region that begins at p, whatever its size.
func Unmap(p unsafe.Pointer, _ uintptr) error {
	return windows.VirtualFree(uintptr(p), 0, windows.MEM_RELEASE)
}

// pointer returns a pointer to an address outside the Go heap.
func pointer(addr uintptr) unsafe.Pointer { return unsafe.Add(unsafe.Pointer(nil), addr) }

// Seal makes pages inaccessible and gives back their memory.
func Seal(p unsafe.Pointer, size uintptr) error {
	return windows.VirtualFree(uintptr(p), size, windows.MEM_DECOMMIT)
}
