//go:build linux || windows

package reach

import "iter"

// beside returns how many bytes of regions lie before low and behind high without a gap. The regions are from their first byte to the one
// behind their last, in the order of their addresses.
func beside(low, high uintptr, regions iter.Seq2[uintptr, uintptr]) (before, behind uintptr) {
	var first, last uintptr // of regions without a gap
	for begin, end := range regions {
		if begin != last {
			first = begin
		}
		if last = end; first <= low && low < last {
			before = low - first
		}
		if first < high && high <= last {
			behind = last - high
		}
	}
	return before, behind
}
