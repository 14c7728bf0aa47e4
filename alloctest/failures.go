package alloctest

import (
	"fmt"
	"strings"
	"testing"

	"github.com/alloctrace/alloctrace"
	"github.com/alloctrace/alloctrace/blockalloc"
	"github.com/alloctrace/alloctrace/blockalloc/blocktest"
	"github.com/alloctrace/alloctrace/counter"
	"github.com/alloctrace/alloctrace/hooks/heapprofile"
)

// CheckAllFailures runs scenario, which allocates from mem, and counts its allocations. Then it
// runs scenario twice for each of them: once with that allocation failing, and once with that
// and all later ones failing. The scenario must return the allocator's error, or one that wraps
// it, and have freed all that it allocated. [blocktest.CheckAllocationFailures] has the details;
// CheckAllFailures adds the places that allocated the blocks left behind.
func CheckAllFailures(t testing.TB, scenario func(mem *alloctrace.Proxy) error) {
	t.Helper()
	skip, err := flaggedSkip()
	if err != nil {
		t.Fatalf("alloctest: %v", err)
	}
	blocktest.CheckAllocationFailures(t, func(inner blockalloc.Allocator) error {
		t.Helper()
		profile := heapprofile.New(heapprofile.Options{Rate: 1, Skip: skip})
		mem := alloctrace.Wrap(inner, alloctrace.WithCounter(counter.Exact()), alloctrace.WithHooks(profile))
		err := scenario(mem)
		switch report := strings.TrimSuffix(profile.Report().String(), "\n"); {
		case mem.Stats().LiveBlocks > 0:
			t.Errorf("alloctest: the scenario returns %q and leaves blocks behind: %s", fmt.Sprint(err), report)
		case profile.Stats().ForeignFrees > 0:
			t.Errorf("alloctest: the scenario returns %q: %s", fmt.Sprint(err), report)
		}
		return err
	})
}
