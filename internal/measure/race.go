//go:build race

package measure

// Race says whether the race detector is on.
const Race = true
