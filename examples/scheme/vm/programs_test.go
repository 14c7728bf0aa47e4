package vm

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/examples/scheme/immix"
)

// programs returns the programs of testdata with what they print.
func programs(t testing.TB) map[string][2]string {
	t.Helper()
	files, err := filepath.Glob("../testdata/*.scm")
	if err != nil || len(files) < 5 {
		t.Fatalf("%d programs, %v", len(files), err)
	}
	all := make(map[string][2]string)
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		out, err := os.ReadFile(strings.TrimSuffix(file, "scm") + "want")
		if err != nil {
			t.Fatal(err)
		}
		all[strings.TrimSuffix(filepath.Base(file), ".scm")] = [2]string{string(text), string(out)}
	}
	return all
}

// TestPrograms runs all programs in all ways of collecting.
func TestPrograms(t *testing.T) {
	for mode, o := range map[string]immix.Options{
		"default":  {},
		"in place": {Evacuate: immix.Never, Allowance: 8 << 10, Check: true},
		"moving":   {Evacuate: immix.Always, Allowance: 8 << 10, Check: true},
		"stress":   {Evacuate: immix.Always, Stress: true, Check: true},
	} {
		for name, p := range programs(t) {
			t.Run(mode+"/"+name, func(t *testing.T) {
				t.Parallel()
				args := []string{name}
				if o.Stress && name == "churn" {
					args = append(args, "300") // steps: each allocates much
				}
				m, out := newMachine(t, Options{Heap: o, Args: args})
				if err := m.Run(strings.NewReader(p[0]), nil); err != nil {
					t.Fatal(err)
				}
				if out.String() != p[1] {
					t.Errorf("it prints\n%s\nwant\n%s", out, p[1])
				}
				_, n := m.heap.Last()
				if mode != "default" && n == 0 {
					t.Error("no collection")
				}
				t.Log(n, "collections")
			})
		}
	}
}
