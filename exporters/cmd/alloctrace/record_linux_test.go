package main

import (
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/creack/pty"
)

// TestRecordProgress: in a terminal the command shows how much it has converted, and removes that.
func TestRecordProgress(t *testing.T) {
	needProgram(t, "cc", "gcc libc6-dev")
	dir := t.TempDir()
	program := filepath.Join(dir, "known")
	if out, err := exec.Command("cc", "-fno-builtin", "-pthread", "-o", program, "internal/preload/testdata/known.c").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	said := inTerminal(t, whole, recordName, "-o", filepath.Join(dir, "a"), program, "threads")
	if !regexp.MustCompile(`^(\r *\d+ %){3,}\r      \ralloctrace: record: `).MatchString(said) {
		t.Errorf("it says %q", said)
	}
}

// TestReplayProgress: in a terminal replay shows how much it has read and done, and shrink how few events are left. Both remove that.
func TestReplayProgress(t *testing.T) {
	path := replayable(t)
	said := inTerminal(t, whole, "replay", path)
	if !regexp.MustCompile(`^(\r *\d+ %)*\r      \r(\r *\d+ %)+\r      \r$`).MatchString(said) {
		t.Errorf("replay says %q", said)
	}
	said = inTerminal(t, whole, "shrink", "-on", "heap", "-limit", "65536", "-o", filepath.Join(t.TempDir(), "small"), path)
	if !regexp.MustCompile(`\r {30}\r\d+ events left(\r {30}\r\d+ events? left)+\r {30}\r$`).MatchString(said) {
		t.Errorf("shrink says %q", said)
	}
}

// inTerminal returns what a command says in a terminal.
func inTerminal(t *testing.T, want int, args ...string) string {
	t.Helper()
	terminal, tty, err := pty.Open()
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	said := make(chan string)
	go func() {
		b, _ := io.ReadAll(terminal) // ends with an error when nobody has tty any more
		said <- string(b)
	}()
	status := run(args, io.Discard, tty)
	tty.Close()
	got := <-said
	if status != want {
		t.Errorf("%q exits with %d, want %d: %q", args, status, want, got)
	}
	return got
}

// TestRecordElsewhere: a program that goes to another directory is recorded there, wherever $TMPDIR is.
func TestRecordElsewhere(t *testing.T) {
	needProgram(t, "cc", "gcc libc6-dev")
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.Mkdir("tmp", 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", "tmp")
	if status, said := runRecord("-o", "a", "/bin/sh", "-c", "cd /; exec ls"); status != whole || !strings.Contains(said, "ls, process ") {
		t.Errorf("it exits with %d and says %q", status, said)
	}
	for _, in := range []string{".", "tmp"} {
		entries, err := os.ReadDir(in)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			if e.Name() != "a" && e.Name() != "tmp" {
				t.Errorf("%s is left", e.Name())
			}
		}
	}
}
