package peers

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"unsafe"

	"github.com/apache/arrow-go/v18/arrow/memory"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/internal/bugs"
)

// roomy is an Arrow allocator in which bugs harm nobody.
type roomy struct{ memory bugs.Memory }

func (r *roomy) Allocate(size int) []byte {
	b, err := r.memory.Allocate(blockalloc.Layout{Size: uintptr(size), Align: 4096})
	if err != nil {
		panic(err)
	}
	return b.Bytes()
}

func (r *roomy) Reallocate(size int, b []byte) []byte {
	n := r.Allocate(size)
	copy(n, b)
	return n
}

func (*roomy) Free([]byte) {}

// onArrow is Arrow's allocator for programs that take memory in blocks.
type onArrow struct{ memory memory.Allocator }

func (a onArrow) Allocate(l blockalloc.Layout) (blockalloc.Block, error) {
	return blockalloc.FromRaw(unsafe.Pointer(unsafe.SliceData(a.memory.Allocate(int(l.Size)))), l)
}

func (a onArrow) Reallocate(b blockalloc.Block, size uintptr) (blockalloc.Block, error) {
	n := a.memory.Reallocate(int(size), b.Bytes())
	return blockalloc.FromRaw(unsafe.Pointer(unsafe.SliceData(n)), blockalloc.Layout{Size: size, Align: b.Align()})
}

func (a onArrow) Free(b blockalloc.Block) error {
	a.memory.Free(b.Bytes())
	return nil
}

// recorder is a test that remembers whether it has failed.
type recorder struct{ errors []string }

func (*recorder) Helper() {}

func (t *recorder) Errorf(format string, args ...any) {
	t.errors = append(t.errors, fmt.Sprintf(format, args...))
}

// arrowReport plants a bug in a test that has its memory of a CheckedAllocator, and
// returns what the test reports.
func arrowReport(t *testing.T, bug bugs.Bug) []string {
	if bug.Found == bugs.ByRaces {
		return arrowRace(t)
	}
	mem, other := memory.NewCheckedAllocator(&roomy{}), memory.NewCheckedAllocator(&roomy{})
	_ = bug.Plant(onArrow{mem}, onArrow{other})
	var test recorder
	mem.AssertSize(&test, 0)
	other.AssertSize(&test, 0)
	return test.errors
}

func arrowRace(t *testing.T) []string {
	racy := filepath.Join(t.TempDir(), "racy")
	if out, err := exec.Command("go", "build", "-race", "-o", racy, "./testdata/racy").CombinedOutput(); err != nil {
		how := "the race detector is run by the go command, with cgo and gcc: put both on PATH"
		if os.Getenv("ALLOCTRACE_REQUIRE_ALL") != "" {
			t.Fatalf("%s: %v\n%s", how, err, out)
		}
		t.Skip(how)
	}
	out, err := exec.Command(racy).CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return []string{string(out)}
	}
	return nil
}

// TestBugsOnArrow plants the bugs that alloctest finds, all of them, in memory of Arrow's
// CheckedAllocator, which has been in use in tests for years. What it does not find it
// does not look for: it sums up sizes, and keeps where blocks were allocated.
func TestBugsOnArrow(t *testing.T) {
	found := map[string]bool{
		"leak": true, "leak in a subtest": true, "missing free on an error path": true,
		"double free": true, "double free across goroutines": true, // the sum is negative then, of what is not known
		"foreign free": true, "free with a wrong size": true, "free through another allocator": true,
		"realloc of a freed block": true, "stale copy of a block": true,
		"race on block bytes": true, // by the race detector
	}
	n := 0
	for _, bug := range bugs.All {
		errors := arrowReport(t, bug)
		if (len(errors) > 0) != found[bug.Name] {
			t.Errorf("%s: CheckedAllocator reports %q", bug.Name, errors)
		}
		if len(errors) > 0 {
			n++
		}
		t.Logf("%-36s %q", bug.Name, errors)
	}
	if n != 11 || len(bugs.All) != 20 {
		t.Errorf("CheckedAllocator finds %d of %d", n, len(bugs.All))
	}
}
