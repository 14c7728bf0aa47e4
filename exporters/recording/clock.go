package recording

import "time"

// fine is how far the times of two events must be apart for their order to be known: less than it takes a processor to see
// what another one did.
const fine = time.Microsecond

// isFine reports whether the clock goes in steps that are fine. That of Windows does not, for one, nor does one that a test has
// stopped.
func isFine() bool {
	start := time.Now()
	shortest := time.Duration(1 << 62)
	for range 5 { // in some of them somebody else had the processor
		at := time.Since(start)
		now := at
		for range 1_000_000 {
			if now = time.Since(start); now != at {
				break
			}
		}
		if now == at {
			return false
		}
		if shortest = min(shortest, now-at); shortest <= fine {
			return true
		}
	}
	return false
}
