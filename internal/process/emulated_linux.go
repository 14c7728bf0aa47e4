package process

import (
	"os"
	"strings"
)

// Emulated reports whether an emulator runs the program, for the kernel does not. Then /proc/self is the emulator's. QEMU's user
// mode hides behind /proc/self/exe, but not behind the thread's.
func Emulated() bool {
	exe, err := os.Readlink("/proc/thread-self/exe")
	return err != nil || strings.Contains(exe, "qemu")
}
