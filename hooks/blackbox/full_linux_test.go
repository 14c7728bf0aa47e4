package blackbox

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

func init() { programs["full"] = full }

// full makes a box on a file system that has no room for it, in a mount namespace of its own.
func full(path string) {
	dir := filepath.Dir(path)
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		fmt.Println("CANNOT mount a tmpfs:", err)
		return
	}
	_, err := Create(path, Options{})
	if _, left := os.Stat(path); !errors.Is(err, syscall.ENOSPC) || left == nil {
		fmt.Println("Create: ", err, "; the file:", left)
	}
	_, err = Create(path, Options{Size: minSize})
	check(err)
	fmt.Println("DONE")
}

// TestFull: a disk that is full is an error of Create, which leaves no file.
func TestFull(t *testing.T) {
	cmd := program(t, "full", newPath(t))
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	out, err := cmd.CombinedOutput()
	if errors.Is(err, syscall.EPERM) || strings.HasPrefix(string(out), "CANNOT") {
		const how = "no file system can be mounted here: run it as root, in a container with --privileged"
		if requireAll {
			t.Fatalf("%s: %v %s", how, err, out)
		}
		t.Skipf("%s: %v %s", how, err, out)
	}
	if err != nil || string(out) != "DONE\n" {
		t.Errorf("%v: %s", err, out)
	}
}
