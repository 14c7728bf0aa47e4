package reach

import (
	"unsafe"

	"golang.org/x/sys/windows"
)

// programAround returns how many bytes of the program's own memory that can be written lie before low and behind high: an address that it was given
// is nowhere else there, but where addresses have 32 bits much of its code looks like one. What follows its memory may be a stack, whose pages
// tell by an access that it has to grow.
func programAround(low, high uintptr) (before, behind uintptr) {
	of, ok := query(low)
	if !ok {
		return 0, 0
	}
	return beside(low, high, func(yield func(begin, end uintptr) bool) {
		for end := of.AllocationBase; ; {
			next, ok := query(end)
			if !ok || next.AllocationBase != of.AllocationBase {
				return
			}
			end = next.BaseAddress + next.RegionSize
			if next.Protect&writable != 0 && !yield(next.BaseAddress, end) {
				return
			}
		}
	})
}

// writable is the kinds of protection that let a page be written.
const writable = windows.PAGE_READWRITE | windows.PAGE_WRITECOPY | windows.PAGE_EXECUTE_READWRITE | windows.PAGE_EXECUTE_WRITECOPY

// query returns what is known of the pages from that of addr on that are alike.
func query(addr uintptr) (info windows.MemoryBasicInformation, ok bool) {
	err := windows.VirtualQuery(addr, &info, unsafe.Sizeof(info))
	return info, err == nil && info.RegionSize > 0
}
