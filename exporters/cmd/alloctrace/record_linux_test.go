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
	status := run([]string{recordName, "-o", filepath.Join(dir, "a"), program, "threads"}, io.Discard, tty)
	tty.Close()
	if got := <-said; status != whole || !regexp.MustCompile(`^(\r *\d+ %){3,}\r      \ralloctrace: record: `).MatchString(got) {
		t.Errorf("it exits with %d and says %q", status, got)
	}
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
