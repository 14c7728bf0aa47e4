package blackbox

import (
	"errors"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/alloctrace/alloctrace/internal/process"
)

// TestOutOfMemory: of a program that the kernel kills in a memory cgroup, the box names the function that took the memory.
func TestOutOfMemory(t *testing.T) {
	const limit = 96 << 20
	cgroup := process.NewCgroup(t, limit)
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
