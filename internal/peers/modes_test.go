//go:build cgo && linux

package peers

import (
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/internal/peers/ccall"
	"github.com/alloctrace/alloctrace/internal/peers/modes/work"
	"github.com/alloctrace/alloctrace/internal/ways"
)

// output runs a command and returns what it prints.
func output(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// checkWays: what runs in another build mode goes the way that this test does.
func checkWays(t *testing.T, got string) {
	t.Helper()
	t.Log(got)
	if want := ways.String(); got != want {
		t.Errorf("the ways are %s, want %s", got, want)
	}
}

// TestShared: a Go library in a C program, which has loaded it, counts what threads of C and
// goroutines do, and walks their stacks.
func TestShared(t *testing.T) {
	dir := t.TempDir()
	library, program := filepath.Join(dir, "shared.so"), filepath.Join(dir, "main")
	output(t, "go", "build", "-buildmode=c-shared", "-o", library, "./modes/shared")
	output(t, "gcc", "-Wall", "-Werror", "-o", program, "testdata/modes/main.c", "-ldl", "-lpthread")
	checkWays(t, output(t, program, library))
}

// TestPlugin: a plugin and the program that has loaded it count in one Counter.
func TestPlugin(t *testing.T) {
	dir := t.TempDir()
	library, program := filepath.Join(dir, "plugin.so"), filepath.Join(dir, "host")
	output(t, "go", "build", "-buildmode=plugin", "-o", library, "./modes/plugin")
	output(t, "go", "build", "-o", program, "./modes/host")
	checkWays(t, output(t, program, library))
}

// TestCountThroughC: a Counter counts in Go code that C has called.
func TestCountThroughC(t *testing.T) {
	var c counter.Counter
	for range 1000 {
		ccall.Call(0, func() {
			if err := work.Count(&c, 10); err != nil {
				t.Error(err)
			}
		})
	}
	if _, err := work.Check(&c, 10_000); err != nil {
		t.Error(err)
	}
}
