//go:build !gc || wasm || alloctrace_nolinkname

package random

import "math/rand/v2"

// FromRuntime is whether the Go runtime's own generator is asked.
const FromRuntime = false

// Uint32 returns a number from 0 to 1<<32-1, each as likely as any other. It may be
// called by several goroutines at once.
func Uint32() uint32 { return rand.Uint32() }
