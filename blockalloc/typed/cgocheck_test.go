//go:build goexperiment.cgocheck2 && (unix || windows) && !race

package typed_test

import (
	"os"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/typed"
	"github.com/alloctrace/alloctrace/internal/process"
)

// TestCgocheck runs under GOEXPERIMENT=cgocheck2 CGO_ENABLED=0 alone. It shows that the
// experiment finds a Go pointer written into a block, in each way a Vec writes. So the
// silence of all other tests under it means that none is. The process in which that
// happens ends.
func TestCgocheck(t *testing.T) {
	ways := map[string]func(*typed.Vec[*int]) error{
		"Append": func(v *typed.Vec[*int]) error { return v.Append(new(int)) },
		"Insert": func(v *typed.Vec[*int]) error { return v.Insert(0, new(int)) },
		"Set":    func(v *typed.Vec[*int]) error { v.Set(0, new(int)); return nil },
		"Slice":  func(v *typed.Vec[*int]) error { v.Slice()[0] = new(int); return nil },
	}
	if way := ways[os.Getenv("ALLOCTRACE_TEST_CGOCHECK")]; way != nil {
		v := typed.UncheckedVec[*int](new(blockalloc.System))
		must(t, v.Append(nil))
		must(t, way(v))
		t.Log("nobody has seen it")
		return
	}
	for name := range ways {
		out, err := process.Again(t, "ALLOCTRACE_TEST_CGOCHECK="+name).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "Go pointer stored into non-Go memory") {
			t.Errorf("%s of a Go pointer: %v\n%s", name, err, out)
		}
	}
}
