//go:build gc && go1.27 && !wasm && !alloctrace_nolinkname

package random

import _ "unsafe" // for linkname

// FromRuntime is whether the Go runtime's own generator is asked.
const FromRuntime = true

// Uint32 returns a number from 0 to 1<<32-1, each as likely as any other. It may be
// called by several goroutines at once.
func Uint32() uint32 { return uint32(cheaprand64()) }

// The runtime keeps it as it is for those that link to it, as its source says. See
// go.dev/issue/67401. Since Go 1.27 its cheaprand has 32 bits of state, and one of its
// bits is set in one hundredth too many or too few of 100,000 numbers in a row.
//
//go:linkname cheaprand64 runtime.cheaprand64
func cheaprand64() int64
