// Package process says whether a test can start processes. Only tests import it.
package process

import (
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
)

// CanStart reports whether a test can start processes, the test's own program among them, and logs why it cannot: on wasm there
// are none. An emulated program could, but may hang: its child begins with the locks of the emulator as other threads held
// them, and waits for one for ever. QEMU's user mode does so once in some hundred starts by a busy program.
func CanStart(t testing.TB) bool {
	t.Helper()
	switch {
	case runtime.GOOS == "js" || runtime.GOOS == "wasip1":
		t.Log("wasm: there are no processes")
		return false
	case Emulated():
		t.Log("emulated: a process that is started may hang")
		return false
	}
	return true
}

// Again returns the command that runs the test alone, in a process of its own, with more in its environment.
func Again(t testing.TB, env ...string) *exec.Cmd {
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^"+strings.ReplaceAll(t.Name(), "/", "$/^")+"$", "-test.v")
	cmd.Env = append(os.Environ(), env...)
	return cmd
}
