package reach

import (
	"os"
	"strconv"
	"strings"
)

// programAround returns how many bytes that can be written lie before low and behind high: an address that the program was given is nowhere else,
// but where addresses have 32 bits much of its code looks like one.
func programAround(low, high uintptr) (before, behind uintptr) {
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return low, -high // what can be read
	}
	return beside(low, high, func(yield func(begin, end uintptr) bool) {
		for line := range strings.Lines(string(maps)) {
			if begin, end, ok := writable(line); ok && !yield(begin, end) {
				return
			}
		}
	})
}

// writable returns the mapping that a line of /proc/self/maps is of, if it can be written.
func writable(line string) (begin, end uintptr, ok bool) {
	addresses, rest, _ := strings.Cut(line, " ")
	from, to, _ := strings.Cut(addresses, "-")
	first, err := strconv.ParseUint(from, 16, strconv.IntSize)
	last, err2 := strconv.ParseUint(to, 16, strconv.IntSize)
	return uintptr(first), uintptr(last), err == nil && err2 == nil && strings.HasPrefix(rest, "rw")
}
