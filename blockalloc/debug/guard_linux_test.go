//go:build linux && !race

package debug_test

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/debug"
	"github.com/alloctrace/alloctrace/internal/measure"
	"github.com/alloctrace/alloctrace/internal/process"
)

// TestWithoutMappings: where the operating system has no mapping for a block with guard
// pages, the parent serves it. The limit is for a process of its own.
func TestWithoutMappings(t *testing.T) {
	if process.Emulated() {
		t.Log("emulated: the limit would stop the emulator")
		return
	}
	const variable = "ALLOCTRACE_TEST_MAPPINGS"
	if os.Getenv(variable) == "" {
		if out, err := process.Again(t, variable+"=1").CombinedOutput(); err != nil || !strings.Contains(string(out), "the parent has served") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	var system blockalloc.System
	large := mustAllocate(t, &system, 512<<20, 16)
	parent, err := blockalloc.NewFixed(large.Bytes())
	if err != nil {
		t.Fatal(err)
	}
	d := debug.New(parent, debug.Options{Guard: true, NoPoison: true, Quarantine: -1})
	small := mustAllocate(t, d, 64, 16)
	limit := uint64(measure.Virtual(t)) + 256<<20
	if err := unix.Setrlimit(unix.RLIMIT_AS, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		t.Fatal(err)
	}
	b := mustAllocate(t, d, 400<<20, 16)
	if s := d.Stats(); s.GuardedBlocks != 1 || parent.Used() < int64(b.Size()) {
		t.Errorf("%+v, %d bytes of the parent are used", s, parent.Used())
	}
	if n, err := d.Reallocate(small, 128); err != nil {
		t.Error(err)
	} else {
		small = n
	}
	mustFree(t, d, b)
	mustFree(t, d, small)
	mustClose(t, d)
	if parent.Used() != 0 {
		t.Errorf("%d bytes of the parent are used in the end", parent.Used())
	}
	mustFree(t, &system, large)
	t.Log("the parent has served")
}
