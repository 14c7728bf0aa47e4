package blackbox

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/alloctrace/alloctrace/internal/process"
)

// TestReplaced: the box has the build ID of the program that runs, and not of one that has taken the place of its file since.
func TestReplaced(t *testing.T) {
	if process.Emulated() {
		t.Skip("the processor is emulated: the program that runs is the emulator")
	}
	want := buildID(os.Args[0])
	if want == "" {
		t.Fatal("the test binary has no build ID")
	}
	path := newPath(t)
	file := filepath.Join(t.TempDir(), "program")
	content, err := os.ReadFile(os.Args[0])
	if err == nil {
		err = os.WriteFile(file, content, 0o700)
	}
	if err == nil {
		err = os.WriteFile(file+".new", []byte("\xff Go build ID: \"another/one\"\n \xff"), 0o700)
	}
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(t.Context(), file)
	cmd.Env = append(os.Environ(), programVariable+"=replaced "+path)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if b := mustOpen(t, path).Build; b.ID != want || b.Executable != file {
		t.Errorf("the build is %q of %q, want %q of %q", b.ID, b.Executable, want, file)
	}
}
