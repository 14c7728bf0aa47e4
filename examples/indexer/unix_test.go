//go:build unix

package main

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestInterrupt sends the signal of Ctrl-C while the standard library is indexed.
func TestInterrupt(t *testing.T) {
	standardLibrary(t)
	cmd := program(t, nil)
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(stderr)
	for {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasPrefix(line, "scan: ") {
			break
		}
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	rest, err := io.ReadAll(lines)
	if err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // the exit code is what counts
	if code := cmd.ProcessState.ExitCode(); code != 130 || !strings.Contains(string(rest), "interrupted: live at the end: 0 bytes") {
		t.Errorf("exit code %d, stderr %s", code, rest)
	}
}

// TestUnreadableFolder: root can read everything, so as root the program is run
// by another user.
func TestUnreadableFolder(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, dir, "in/a.txt", "text")
	in := filepath.Join(dir, "in")
	cmd := program(t, nil)
	if os.Getuid() == 0 {
		const nobody = 65534
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		cmd.Path = filepath.Join(dir, "indexer")
		binary, err := os.ReadFile(os.Args[0])
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(cmd.Path, binary, 0o700); err != nil {
			t.Fatal(err)
		}
		temp := filepath.Join(dir, "tmp")
		if err := os.Mkdir(temp, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(temp, nobody, nobody); err != nil {
			t.Fatal(err)
		}
		cmd.Env = append(cmd.Env, "TMPDIR="+temp)
		for _, d := range []string{cmd.Path, dir, filepath.Dir(dir)} {
			if err := os.Chmod(d, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		usage := exec.Command(cmd.Path, "-h")
		usage.Env, usage.SysProcAttr = cmd.Env, cmd.SysProcAttr
		if err := usage.Run(); err != nil {
			cannot(t, "no other user can run the program here: %v", err)
		}
	}
	if err := os.Chmod(in, 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Chmod(in, 0o755) })
	if _, err := os.ReadDir(in); err == nil && os.Getuid() != 0 {
		cannot(t, "this user, or this file system, can read what must not be read")
	}
	wantBadFolder(t, cmd, in, filepath.Join(dir, "out"), "permission denied")

	// A folder whose only file cannot be read.
	if err := os.Chmod(in, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Join(in, "a.txt"), 0); err != nil {
		t.Fatal(err)
	}
	wantBadFolder(t, cmd, in, filepath.Join(dir, "out"), "no text file in it can be read")
}
