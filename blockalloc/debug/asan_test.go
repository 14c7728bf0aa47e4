package debug_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/internal/process"
)

// TestAddressSanitizer: AddressSanitizer finds accesses to the surroundings of a block
// and to a freed one, in each kind of memory, from Go and from C. Correct programs
// pass. The test builds a program, which takes long and needs tools.
func TestAddressSanitizer(t *testing.T) {
	if testing.Short() {
		t.Skip("a program would be built with AddressSanitizer: set ALLOCTRACE_REQUIRE_ALL=1")
	}
	if !process.CanStart(t) {
		return
	}
	if out, err := exec.Command("go", "build", "-asan", "runtime/asan").CombinedOutput(); err != nil {
		if allModes {
			t.Fatalf("%v\n%s", err, out)
		}
		t.Skip("AddressSanitizer is built in by the go command, with cgo and gcc: put both on PATH")
	}
	program := filepath.Join(t.TempDir(), "asan")
	if out, err := exec.Command("go", "build", "-asan", "-o", program, "./testdata/asan").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for what, want := range map[string]string{
		"past the end":      "READ of size 1 at ",
		"before the start":  "WRITE of size 1 at ",
		"after free":        "READ of size 1 at ",
		"past the end in C": "READ of size 1 at ",
		"after free in C":   "READ of size 1 at ",
		"storm":             "",
	} {
		for _, parent := range []string{"Heap", "Pool", "System"} {
			t.Run(what+"/"+parent, func(t *testing.T) {
				cmd := exec.Command(program, what, parent)
				cmd.Env = append(os.Environ(), "ASAN_OPTIONS=")
				out, err := cmd.CombinedOutput()
				switch text := string(out); {
				case want == "" && (err != nil || text != ""):
					t.Errorf("a false alarm: %v\n%s", err, text)
				case want != "" && (err == nil || !strings.Contains(text, "AddressSanitizer: use-after-poison on address ") || !strings.Contains(text, want)):
					t.Errorf("%v, want %q:\n%s", err, want, text)
				}
			})
		}
	}
}
