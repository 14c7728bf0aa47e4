//go:build !linux && !windows

package reach

// programAround returns how many bytes of the program's own memory lie before low and behind high, at most: what follows that cannot be read, or
// can be looked at too.
func programAround(low, high uintptr) (before, behind uintptr) { return low, -high }
