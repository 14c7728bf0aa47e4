//go:build linux && !race

package guard_test

import (
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/guard"
	"github.com/alloctrace/alloctrace/internal/measure"
	"github.com/alloctrace/alloctrace/internal/process"
)

// TestWithoutAddressSpace: where the process may not have the address space for all slots, it has those for smaller blocks,
// and with no room at all everything passes through. The limit is for a process of its own.
func TestWithoutAddressSpace(t *testing.T) {
	if process.Emulated() {
		t.Log("emulated: the limit would stop the emulator")
		return
	}
	const variable = "ALLOCTRACE_TEST_ADDRESSES"
	if os.Getenv(variable) == "" {
		if out, err := process.Again(t, variable+"=1").CombinedOutput(); err != nil || !strings.Contains(string(out), "all were served") {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	limit := uint64(measure.Virtual(t)) + 256<<20
	if err := unix.Setrlimit(unix.RLIMIT_AS, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		t.Fatal(err)
	}
	few := newAllocator(t, new(blockalloc.Heap), guard.Options{Rate: 1})
	small, large := mustAllocate(t, few, 500_000, 1), mustAllocate(t, few, 2_000_000, 1)
	if s := few.Stats(); s.LiveBlocks != 1 || s.TooLarge != 1 {
		t.Errorf("%+v, want that one block has a slot", s)
	}
	none := newAllocator(t, new(blockalloc.Heap), guard.Options{Rate: 1, Memory: 1 << 30})
	b := mustAllocate(t, none, 100, 1)
	none.SetRate(1)
	if s := none.Stats(); s != (guard.Stats{}) || len(none.Mappings()) != 0 {
		t.Errorf("%+v, want no slots", s)
	}
	if r, ok := none.Describe(b.Addr()); ok {
		t.Errorf("Describe: %v", r)
	}
	mustFree(t, few, small)
	mustFree(t, few, large)
	mustFree(t, none, b)
	t.Log("all were served")
}
