package alloctest

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// TestRaceIsSeen: the race detector sees two goroutines write one byte of a block of New's
// Proxy, and nothing where they do so one after the other.
func TestRaceIsSeen(t *testing.T) {
	if out, err := exec.Command("go", "build", "-race", "-o", os.DevNull, "./testdata/racy").CombinedOutput(); err != nil {
		how := "the race detector is run by the go command, with cgo and gcc: put both on PATH"
		if os.Getenv("ALLOCTRACE_REQUIRE_ALL") != "" {
			t.Fatalf("%s: %v\n%s", how, err, out)
		}
		t.Skip(how)
	}
	out, err := exec.Command("go", "run", "-race", "./testdata/racy").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "WARNING: DATA RACE") || !strings.Contains(string(out), "racy/main.go:") {
		t.Errorf("with a race: %v\n%s", err, out)
	}
	if out, err := exec.Command("go", "run", "-race", "./testdata/racy", "ordered").CombinedOutput(); err != nil {
		t.Errorf("without: %v\n%s", err, out)
	}
}
