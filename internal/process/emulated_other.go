//go:build !linux

package process

// Emulated returns false: the tests are emulated on Linux alone.
func Emulated() bool { return false }
