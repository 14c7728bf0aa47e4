//go:build gc && (amd64 || arm64)

package goroutine

// id returns the address of the runtime's record of the goroutine, which stays where it is.
func id() uintptr

// depth returns how far the stack is from its end, which is the second word of the record.
func depth() uintptr
