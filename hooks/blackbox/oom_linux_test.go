package blackbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestOutOfMemory: of a program that the kernel kills in a memory cgroup, the box names the function that took the memory.
func TestOutOfMemory(t *testing.T) {
	const limit = 96 << 20
	cgroup := newCgroup(t, limit)
	path := newPath(t)
	cmd := program(t, "oom", path)
	cmd.Path, cmd.Args = "/bin/sh", []string{"sh", "-c", `echo $$ > "$0"/cgroup.procs && exec "$1"`, cgroup, os.Args[0]}
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Fatalf("the program ends with %v, want signal: killed\n%s", err, out)
	}
	c := mustOpen(t, path)
	if len(c.Damage) != 0 || !c.Closed.IsZero() || len(c.Events) < 20 {
		t.Errorf("damage %q, closed at %v, %d events", c.Damage, c.Closed, len(c.Events))
	}
	for name, s := range map[string]Sites{"live": c.Live, "peak": c.Peak} {
		if len(s.Sites) == 0 || !strings.HasSuffix(s.Sites[0].Stack[0].Function, "blackbox.fillForever") || s.Sites[0].Bytes < 4<<20 || s.Sites[0].Bytes > limit {
			t.Errorf("%s: %+v, want most of it by fillForever", name, s)
		}
	}
	if last := c.Events[len(c.Events)-1]; last.Child != "cache" || last.Size != 1<<20 {
		t.Errorf("the last event is %+v", last)
	}
}

// newCgroup makes a memory cgroup without swap below that of this process, and returns its folder.
func newCgroup(t *testing.T, max int64) string {
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
		if dir, err = os.MkdirTemp(dir, "alloctrace-blackbox-*"); err != nil {
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
		if requireAll {
			t.Fatalf("%s: %v", how, err)
		}
		t.Skipf("%s: %v", how, err)
	}
	return dir
}
