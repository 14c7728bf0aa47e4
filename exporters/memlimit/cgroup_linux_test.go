package memlimit_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/alloctrace/alloctrace/exporters/memlimit"
	"github.com/alloctrace/alloctrace/internal/process"
)

const (
	mib       = 1 << 20
	container = 288 * mib
)

// requireAll has all tests run in full, and fail where they would be skipped.
var requireAll = os.Getenv("ALLOCTRACE_REQUIRE_ALL") == "1"

// resident says what a process is to do before it looks for its budget.
type resident struct {
	Join    []string    // cgroups to go into, one after the other
	Unshare uintptr     // namespaces to leave then
	After   string      // a cgroup to go into then, if any
	Mounts  [][4]string // to mount then: source, target, type (none is a bind mount), data
}

const residentVariable = "ALLOCTRACE_RESIDENT"

// found returns the budget that a process finds which does what r says, and where from. That is
// 0 and "" if there is none.
func (r resident) found(t *testing.T) (budget int64, from string) {
	t.Helper()
	text, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestResident$", "-test.v")
	cmd.Env = append(os.Environ(), residentVariable+"="+string(text), "GOMEMLIMIT=off")
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if _, why, ok := strings.Cut(string(out), "CANNOT "); ok && err == nil {
		cannot(t, "cgroups cannot be mounted here: run it as root, in a container with --privileged", errors.New(why))
	}
	_, line, ok := strings.Cut(string(out), "FOUND ")
	if err != nil || !ok {
		t.Fatalf("%v: %s", err, out)
	}
	if _, err := fmt.Sscanf(line, "%d %q", &budget, &from); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return budget, from
}

// TestResident is that process.
func TestResident(t *testing.T) {
	var r resident
	if text := os.Getenv(residentVariable); text == "" {
		t.Skip("it is for the processes of other tests")
	} else if err := json.Unmarshal([]byte(text), &r); err != nil {
		t.Fatal(err)
	}
	join := func(cgroup string) {
		if err := os.WriteFile(filepath.Join(cgroup, "cgroup.procs"), []byte("0"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, cgroup := range r.Join {
		join(cgroup)
	}
	if r.Unshare != 0 { // only a new process is outside with all its threads
		flags := r.Unshare
		r.Join, r.Unshare = nil, 0
		text, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestResident$", "-test.v")
		cmd.Env = append(os.Environ(), residentVariable+"="+string(text))
		cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: flags}
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		if err := cmd.Run(); err != nil {
			t.Fatal(err)
		}
		return
	}
	if r.After != "" {
		join(r.After)
	}
	for _, m := range r.Mounts {
		var flags uintptr
		if m[2] == "" {
			flags = syscall.MS_BIND
		}
		if err := syscall.Mount(m[0], m[1], m[2], flags, m[3]); err != nil {
			fmt.Printf("CANNOT mount %q: %v\n", m, err)
			return
		}
	}
	l, err := memlimit.New(memlimit.Options{Headroom: 1}, memlimit.Bytes(func() int64 { return 0 }))
	if errors.Is(err, memlimit.ErrNoBudget) {
		fmt.Println(`FOUND 0 ""`)
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	fmt.Printf("FOUND %d %q\n", l.Stats().Budget, l.Stats().From)
}

// TestRealCgroups: the budget is that of the process's own cgroup, in real cgroups, wherever
// they are mounted and whatever else is.
func TestRealCgroups(t *testing.T) {
	if budget, from := (resident{}).found(t); budget != 0 && budget < 128*mib {
		cannot(t, "the cgroups here are small: run it where there are 128 MiB", fmt.Errorf("%s is %d", from, budget))
	}
	own, other := process.NewCgroup(t, 96*mib), process.NewCgroup(t, 64*mib)
	file := "memory.max"
	kind, data := "cgroup2", ""
	if _, err := os.Stat(filepath.Join(own, file)); err != nil {
		file, kind, data = "memory.limit_in_bytes", "cgroup", "memory"
	}
	below := filepath.Join(own, "below")
	if err := os.Mkdir(below, 0o755); err != nil {
		t.Fatal(err)
	}
	defer os.Remove(below)
	const spaces = syscall.CLONE_NEWNS | syscall.CLONE_NEWCGROUP
	at := filepath.Join(t.TempDir(), "mount #\t\\\n") // what mountinfo escapes
	if err := os.Mkdir(at, 0o755); err != nil {
		t.Fatal(err)
	}
	hide := [4]string{"tmpfs", "/sys/fs/cgroup", "tmpfs", ""}
	again := [4]string{"", at, kind, data} // the source is empty
	for _, c := range []struct {
		name string
		resident
		want int64
		from string
	}{
		{"own", resident{Join: []string{own}}, 96 * mib, own},
		{"around", resident{Join: []string{below}}, 96 * mib, own},
		{"another's is mounted", resident{Join: []string{own}, Unshare: syscall.CLONE_NEWNS, Mounts: [][4]string{{other, at, "", ""}}}, 96 * mib, own},
		{"only another's is mounted", resident{Join: []string{own}, Unshare: syscall.CLONE_NEWNS, Mounts: [][4]string{{other, at, "", ""}, hide}}, 0, ""},
		{"hidden", resident{Join: []string{own}, Unshare: syscall.CLONE_NEWNS, Mounts: [][4]string{hide}}, 0, ""},
		{"hidden and mounted elsewhere, in part", resident{Join: []string{below}, Unshare: syscall.CLONE_NEWNS, Mounts: [][4]string{{own, at, "", ""}, hide}}, 96 * mib, at},
		{"mounted in a namespace, without a source", resident{Join: []string{own}, Unshare: spaces, Mounts: [][4]string{again, hide}}, 96 * mib, at},
		{"mounted around a namespace", resident{Join: []string{own}, Unshare: spaces}, 96 * mib, own},
		{"mounted around a namespace, and another's", resident{Join: []string{own}, Unshare: spaces, Mounts: [][4]string{{other, at, "", ""}}}, 96 * mib, own},
		{"out of the namespace", resident{Join: []string{other}, Unshare: spaces, After: own}, 96 * mib, own},
		{"out of all that is mounted", resident{Join: []string{other}, Unshare: spaces, After: own, Mounts: [][4]string{again, hide}}, 0, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.Unshare != 0 {
				probe := exec.CommandContext(t.Context(), "/bin/sh", "-c", "exit")
				probe.SysProcAttr = &syscall.SysProcAttr{Unshareflags: c.Unshare}
				if err := probe.Run(); err != nil {
					cannot(t, "no namespaces can be made here: run it as root, in a container with --privileged", err)
				}
			}
			budget, from := c.found(t)
			want := ""
			if c.from != "" {
				want = filepath.Join(c.from, file)
			}
			if budget != c.want || from != want {
				t.Errorf("the budget is %d from %q, want %d from %q", budget, from, c.want, want)
			}
		})
	}
}

// cannot ends a test that this machine does not let run.
func cannot(t *testing.T, how string, err error) {
	t.Helper()
	if requireAll {
		t.Fatalf("%s: %v", how, err)
	}
	t.Skipf("%s: %v", how, err)
}
