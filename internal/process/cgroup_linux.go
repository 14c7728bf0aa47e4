package process

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// NewCgroup makes a cgroup that may have max bytes of memory and no swap, below that of this process or, with version 2, beside
// it. It returns its folder, and removes it when the test has ended. Where there can be none, the test is skipped, or fails if
// ALLOCTRACE_REQUIRE_ALL is 1.
func NewCgroup(t testing.TB, max int64) string {
	t.Helper()
	dir, err := func() (string, error) {
		own, err := os.ReadFile("/proc/self/cgroup")
		if err != nil {
			return "", err
		}
		limit, swap := "memory.max", "memory.swap.max"
		var dir string
		for line := range strings.Lines(string(own)) {
			if f := strings.SplitN(strings.TrimSpace(line), ":", 3); f[1] == "memory" {
				dir = filepath.Join("/sys/fs/cgroup/memory", f[2])
				limit, swap = "memory.limit_in_bytes", "memory.swappiness"
				break
			} else if f[1] == "" {
				dir = filepath.Join("/sys/fs/cgroup", filepath.Dir(f[2]))
			}
		}
		_ = os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+memory"), 0o644) // often it is on, or may not be switched on
		if dir, err = os.MkdirTemp(dir, "alloctrace-*"); err != nil {
			return "", err
		}
		t.Cleanup(func() {
			for try := 0; ; try++ { // what was killed in it may still be going
				err := os.Remove(dir)
				if err == nil {
					return
				}
				if try == 100 {
					t.Errorf("the cgroup is left behind: %v", err)
					return
				}
				time.Sleep(50 * time.Millisecond)
			}
		})
		_ = os.WriteFile(filepath.Join(dir, swap), []byte("0"), 0o644) // not where the kernel has no swap
		return dir, os.WriteFile(filepath.Join(dir, limit), []byte(fmt.Sprint(max)), 0o644)
	}()
	if err != nil {
		const how = "no memory cgroup can be made here: run it as root, in a container with --privileged, or by systemd-run -p Delegate=memory"
		if os.Getenv("ALLOCTRACE_REQUIRE_ALL") == "1" {
			t.Fatalf("%s: %v", how, err)
		}
		t.Skipf("%s: %v", how, err)
	}
	return dir
}
