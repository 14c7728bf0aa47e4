// Package goroutine distinguishes goroutines.
package goroutine

// ID returns a number that no two goroutines have at once, and a goroutine as long as it
// runs. One that starts later may have the number of one that has ended. It is 0 where
// nothing is known: with compilers other than gc, and on processors other than amd64 and
// arm64. It costs a nanosecond or two.
func ID() uintptr { return id() }

// Depth returns how many bytes of its stack the goroutine uses, or 0 where that is not known. It costs
// as much as ID.
func Depth() uintptr { return depth() }
