package reach

import (
	"unsafe"

	"golang.org/x/sys/windows"
)

// programAround returns how many bytes of the program's own memory lie before low and behind high. What follows may be a stack, whose pages tell by
// an access that it has to grow.
func programAround(low, high uintptr) (before, behind uintptr) {
	of, ok := query(low)
	if !ok {
		return 0, 0
	}
	end := of.BaseAddress
	for {
		next, ok := query(end)
		if !ok || next.AllocationBase != of.AllocationBase {
			break
		}
		end = next.BaseAddress + next.RegionSize
	}
	if end < high {
		return low - of.AllocationBase, 0
	}
	return low - of.AllocationBase, end - high
}

// query returns what is known of the pages from that of addr on that are alike.
func query(addr uintptr) (info windows.MemoryBasicInformation, ok bool) {
	err := windows.VirtualQuery(addr, &info, unsafe.Sizeof(info))
	return info, err == nil && info.RegionSize > 0
}
