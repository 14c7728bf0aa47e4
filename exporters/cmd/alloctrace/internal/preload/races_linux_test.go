package preload

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestRaces: the recorder has no data race that the thread sanitizer sees.
func TestRaces(t *testing.T) {
	if testing.Short() {
		t.Skip("long: run with -short=false")
	}
	for _, cc := range []string{"gcc", "clang"} {
		t.Run(cc, func(t *testing.T) {
			cc := need(t, cc, cc)
			dir := t.TempDir()
			program := filepath.Join(dir, "races")
			args := []string{"-g", "-O1", "-fsanitize=thread", "-o", program, "recorder/preload.c", "testdata/races.c"}
			for _, f := range []string{"malloc", "calloc", "realloc", "reallocarray", "free", "posix_memalign", "aligned_alloc", "memalign", "valloc", "pvalloc"} {
				args = append(args, "-D"+f+"=recorded_"+f)
			}
			if err := compile(cc, args...); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(program)
			cmd.Env = Options{Frames: 4}.Environ(os.Environ(), "", dir)
			if out, err := cmd.CombinedOutput(); err != nil || string(out) != "done\n" {
				t.Errorf("%v: %s", err, out)
			}
			f, err := Open(filepath.Join(dir, name(cmd)))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if sum := count(t, f); sum.kinds[1] < 30_000 || sum.lost > 0 || len(sum.threads) != 41 {
				t.Error(sum)
			}
		})
	}
}
