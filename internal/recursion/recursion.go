// Package recursion finds hooks that are called without end, because they allocate through
// the Proxy that they observe. Else such a program would fill a stack of 1 GiB before it ends.
package recursion

import (
	"unsafe"

	"github.com/alloctrace/alloctrace/internal/callers"
	"github.com/alloctrace/alloctrace/internal/goroutine"
)

// Check panics if the function that called its caller is on the stack again and again. It is
// called before hooks are, but for those of a free: who is called without end allocates, or fails.
//
// It looks only where the stack has come to some places, of 8 KiB, one in 16: recursion comes by one
// soon. Elsewhere it costs three or four instructions. There it costs some nanoseconds, unless
// the stack is larger than it mostly is in a sound program.
//
//go:nocheckptr // which would have here escape, with -asan too
func Check() {
	var here struct{} // has an address in the stack, and takes no instruction to clear
	if uintptr(unsafe.Pointer(&here))&elsewhere == 0 {
		look()
	}
}

const (
	large  = 256 << 10 // bytes of stack
	levels = 16        // hooks that allocate from other proxies, which have hooks that do so, are fewer
)

// look looks at the stack if it is large.
//
//go:noinline
func look() {
	if depth := goroutine.Depth(); depth == 0 || depth > large {
		count()
	}
}

//go:noinline
func count() {
	var pcs [4096]uintptr
	n := callers.Stack(pcs[:])
	const caller = 4 // count, look, Check if it is not inlined, its caller, and somebody who called that
	found := 0
	for i := caller; i < n; i++ {
		if pcs[i] == pcs[caller] {
			found++
		}
	}
	if found >= levels {
		panic("alloctrace: a Hook allocates or frees through the Proxy that it observes, and is called for that again, without end: let it use Proxy.Quiet")
	}
}
