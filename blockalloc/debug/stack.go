package debug

import (
	"runtime"
	"slices"

	"github.com/alloctrace/alloctrace/internal/callers"
)

// A Stack is return addresses, the innermost first, for [runtime.CallersFrames].
type Stack []uintptr

// stack returns where the caller's caller is.
func (d *Allocator) stack() Stack {
	if d.options.Stack == 0 {
		return nil
	}
	var pcs [1 + maxStack]uintptr
	n := callers.Stack(pcs[:1+d.options.Stack])
	return slices.Clone(pcs[1:n]) // the first is of this package in any case
}

// Frames returns the frames of s, without those of this library, and without those of
// the Go runtime and of package testing at either end.
func (s Stack) Frames() []runtime.Frame { return callers.Frames(s) }

// String returns a line for each of the Frames, without a newline at the end: the
// file's base name, the line, and the function after its package's name, as in
// "cache_test.go:31 cache.TestEvict".
func (s Stack) String() string { return callers.Lines(s.Frames()) }
